package ruleset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// decoder turns the rules of one table into conditions and verdicts.
type decoder struct {
	ruleset *Ruleset
	conn    *nftables.Conn
	table   string
	v6      bool
	regs    [registers]register // of the rule at hand
	words   []string            // of its text
	out     rule
}

const registers = 64 // of four bytes each; the kernel has 20

// register is what a rule has loaded: where from, and how to know its value.
type register struct {
	name string
	size int
	load func(Packet) bits
}

// bits is a value of which some bits are known.
type bits struct{ value, known []byte }

func unknown(size int) bits { return bits{make([]byte, size), make([]byte, size)} }

func known(v []byte) bits { return bits{v, bytes.Repeat([]byte{0xff}, len(v))} }

// equal compares with a value that is all known.
func (b bits) equal(v []byte) tri {
	result := yes
	for i := range min(len(v), len(b.value)) {
		switch {
		case (b.value[i]^v[i])&b.known[i] != 0:
			return no
		case b.known[i] != 0xff:
			result = maybe
		}
	}
	return result
}

// slot is where a register is among the 32-bit ones.
func slot(reg uint32) int {
	const first = 8 // NFT_REG32_00
	if reg >= first {
		return int(reg-first) % registers
	}
	return int(max(reg, 1)-1) * 4 % registers
}

func (d *decoder) rule(nr *nftables.Rule) rule {
	d.regs, d.words, d.out = [registers]register{}, nil, rule{comment: commentOf(nr)}
	for _, e := range nr.Exprs {
		d.expr(e)
	}
	if d.out.comment != "" {
		d.say("comment %q", d.out.comment)
	}
	d.out.text = strings.Join(d.words, " ")
	return d.out
}

func (d *decoder) say(format string, args ...any) {
	d.words = append(d.words, fmt.Sprintf(format, args...))
}

// unclear adds a condition that nobody here understands.
func (d *decoder) unclear(word string) {
	d.out.terms = append(d.out.terms, func(Packet) tri { return maybe })
	d.say("%s", word)
}

func (d *decoder) expr(e expr.Any) {
	switch e := e.(type) {
	case *expr.Meta:
		if !e.SourceRegister {
			d.regs[slot(e.Register)] = metaRegister(e.Key)
		}
	case *expr.Payload:
		if e.OperationType == expr.PayloadLoad {
			d.regs[slot(e.DestRegister)] = d.payload(e)
		}
	case *expr.Ct:
		if !e.SourceRegister {
			d.regs[slot(e.Register)] = ctRegister(e.Key)
		}
	case *expr.Bitwise:
		d.bitwise(e)
	case *expr.Cmp:
		d.compare(e)
	case *expr.Lookup:
		d.lookup(e)
	case *expr.Match:
		d.match(e)
	case *expr.Counter, *expr.Log, *expr.Immediate, *expr.Notrack, *expr.Objref:
	default:
		d.decide(e)
	}
}

// decide reads what a rule does at its end.
func (d *decoder) decide(e expr.Any) {
	end := func(k kind, word string) { d.out.verdict = verdict{kind: k}; d.say("%s", word) }
	switch e := e.(type) {
	case *expr.Verdict:
		d.out.verdict = verdictOf(e)
		d.say("%s", strings.TrimSpace(verdictWords[e.Kind]+" "+e.Chain))
	case *expr.Reject:
		end(drop, "reject")
	case *expr.Masq:
		end(masquerade, "masquerade")
	case *expr.NAT:
		if e.Type == expr.NATTypeSourceNAT {
			end(masquerade, "snat")
			return
		}
		end(dnat, "dnat")
	case *expr.Redir:
		end(dnat, "redirect")
	case *expr.Target:
		switch e.Name {
		case "MASQUERADE", "SNAT":
			end(masquerade, e.Name)
		case "REJECT":
			end(drop, e.Name)
		case "DNAT", "REDIRECT":
			end(dnat, e.Name)
		default:
			d.say("%s", e.Name)
		}
	case *expr.Fib:
		d.regs[slot(e.Register)] = fibRegister(e)
	case *expr.Byteorder, *expr.Dynset:
	default:
		d.unclear(strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", e), "*expr.")))
	}
}

var verdictWords = map[expr.VerdictKind]string{
	expr.VerdictAccept: "accept", expr.VerdictDrop: "drop", expr.VerdictReturn: "return", expr.VerdictJump: "jump",
	expr.VerdictGoto: "goto", expr.VerdictContinue: "continue", expr.VerdictQueue: "queue",
}

func verdictOf(e *expr.Verdict) verdict {
	kinds := map[expr.VerdictKind]kind{
		expr.VerdictAccept: accept, expr.VerdictDrop: drop, expr.VerdictReturn: back, expr.VerdictJump: jump,
		expr.VerdictGoto: goTo, expr.VerdictQueue: accept, expr.VerdictStop: accept,
	}
	return verdict{kinds[e.Kind], e.Chain}
}

var protocolNumbers = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// metaRegister knows the family and the interfaces.
func metaRegister(key expr.MetaKey) register {
	switch key {
	case expr.MetaKeyIIFNAME:
		return register{"iifname", unix.IFNAMSIZ, func(p Packet) bits { return ifName(p.In) }}
	case expr.MetaKeyOIFNAME:
		return register{"oifname", unix.IFNAMSIZ, func(p Packet) bits { return ifName(p.Out) }}
	case expr.MetaKeyIIF:
		return register{"iif", 4, func(p Packet) bits { return ifIndex(p.In) }}
	case expr.MetaKeyOIF:
		return register{"oif", 4, func(p Packet) bits { return ifIndex(p.Out) }}
	case expr.MetaKeyNFPROTO:
		return register{"meta nfproto", 1, func(p Packet) bits {
			if p.Src.Is4() {
				return known([]byte{unix.NFPROTO_IPV4})
			}
			return known([]byte{unix.NFPROTO_IPV6})
		}}
	case expr.MetaKeyL4PROTO:
		return register{"meta l4proto", 1, func(p Packet) bits {
			if number, ok := protocolNumbers[p.Proto]; ok {
				return known([]byte{number})
			}
			return unknown(1)
		}}
	case expr.MetaKeyPROTOCOL:
		return register{"meta protocol", 2, func(p Packet) bits {
			if p.Src.Is4() {
				return known([]byte{0x08, 0x00})
			}
			return known([]byte{0x86, 0xdd})
		}}
	}
	return register{"meta", 16, func(Packet) bits { return unknown(16) }}
}

func ifName(name string) bits {
	if name == "" {
		return unknown(unix.IFNAMSIZ)
	}
	v := make([]byte, unix.IFNAMSIZ)
	copy(v, name)
	return known(v)
}

func ifIndex(name string) bits {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return unknown(4)
	}
	return known(binary.NativeEndian.AppendUint32(nil, uint32(i.Index)))
}

// The states of a connection.
const (
	stateEstablished = 1 << 1
	stateNew         = 1 << 3
)

func ctRegister(key expr.CtKey) register {
	if key != expr.CtKeySTATE {
		return register{"ct", 16, func(Packet) bits { return unknown(16) }}
	}
	return register{"ct state", 4, func(p Packet) bits { return known(binary.NativeEndian.AppendUint32(nil, stateOf(p))) }}
}

func stateOf(p Packet) uint32 {
	if p.Answer {
		return stateEstablished
	}
	return stateNew
}

// fibRegister knows packets to the host itself.
func fibRegister(e *expr.Fib) register {
	return register{name: "fib", size: 4, load: func(p Packet) bits {
		if !e.ResultADDRTYPE || !e.FlagDADDR || !p.Local {
			return unknown(4)
		}
		return known(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL))
	}}
}

// transport knows the port that a packet goes to.
func transport(at, size int) register {
	const portAt, portSize = 2, 2
	if at != portAt || size != portSize {
		return register{"th", size, func(Packet) bits { return unknown(size) }}
	}
	return register{"th dport", size, func(p Packet) bits {
		if p.Port == 0 {
			return unknown(size)
		}
		return known(binary.BigEndian.AppendUint16(nil, p.Port))
	}}
}

// payload knows the addresses and the port.
func (d *decoder) payload(e *expr.Payload) register {
	at, size := int(e.Offset), int(e.Len)
	if e.Base == expr.PayloadBaseTransportHeader {
		return transport(at, size)
	}
	if e.Base != expr.PayloadBaseNetworkHeader {
		return register{"th", size, func(Packet) bits { return unknown(size) }}
	}
	// A rule of an inet table has asked for the family before.
	v6 := d.v6 || at >= 20 || size > 4 || at == 8
	name := "ip"
	src, dst, length := 12, 16, 4
	if v6 {
		name, src, dst, length = "ip6", 8, 24, 16
	}
	switch {
	case at >= src && at+size <= src+length:
		name += " saddr"
	case at >= dst && at+size <= dst+length:
		name += " daddr"
	}
	return register{name, size, func(p Packet) bits { return header(p, v6).cut(at, size) }}
}

// header is a packet's network header as far as it is known.
func header(p Packet, v6 bool) bits {
	const room = 64
	h := unknown(room)
	put := func(at int, a netip.Addr) {
		if !a.IsValid() {
			return
		}
		for i, b := range a.AsSlice() {
			h.value[at+i], h.known[at+i] = b, 0xff
		}
	}
	if p.Src.Is4() == v6 {
		return h
	}
	if v6 {
		put(8, p.Src)
		put(24, p.Dst)
	} else {
		put(12, p.Src)
		put(16, p.Dst)
	}
	return h
}

func (b bits) cut(at, size int) bits {
	if at+size > len(b.value) {
		return unknown(size)
	}
	return bits{b.value[at : at+size], b.known[at : at+size]}
}

func (d *decoder) bitwise(e *expr.Bitwise) {
	r := d.regs[slot(e.SourceRegister)]
	load := r.load
	if load == nil || len(e.Mask) == 0 {
		d.regs[slot(e.DestRegister)] = register{"bits", int(e.Len), func(Packet) bits { return unknown(int(e.Len)) }}
		return
	}
	r.load = func(p Packet) bits {
		in := load(p)
		out := unknown(len(e.Mask))
		for i := range min(len(e.Mask), len(in.value)) {
			out.value[i], out.known[i] = in.value[i]&e.Mask[i], in.known[i]|^e.Mask[i]
			if i < len(e.Xor) {
				out.value[i] ^= e.Xor[i]
			}
		}
		return out
	}
	if r.name == "ct state" && len(e.Mask) == 4 {
		r.name += " " + strings.Join(stateNames(nl.Uint32(e.Mask)), ",")
	}
	if ones, size := net.IPMask(e.Mask).Size(); size > 0 && strings.HasSuffix(r.name, "addr") {
		r.name += fmt.Sprintf("/%d", ones)
	}
	d.regs[slot(e.DestRegister)] = r
}

func (d *decoder) compare(e *expr.Cmp) {
	r := d.regs[slot(e.Register)]
	if r.load == nil {
		d.unclear("…")
		return
	}
	if e.Op != expr.CmpOpEq && e.Op != expr.CmpOpNeq {
		d.order(r, e)
		return
	}
	d.out.terms = append(d.out.terms, func(p Packet) tri {
		t := r.load(p).equal(e.Data)
		if e.Op == expr.CmpOpNeq {
			t = t.not()
		}
		return t
	})
	d.say("%s", r.words(e))
}

// order compares with the end of a range: values are in network order.
func (d *decoder) order(r register, e *expr.Cmp) {
	d.out.terms = append(d.out.terms, func(p Packet) tri {
		b := r.load(p)
		if len(b.value) < len(e.Data) || bytes.Contains(b.known, []byte{0}) {
			return maybe
		}
		c := bytes.Compare(b.value[:len(e.Data)], e.Data)
		return answer(c < 0 && (e.Op == expr.CmpOpLt || e.Op == expr.CmpOpLte) || c > 0 && (e.Op == expr.CmpOpGt || e.Op == expr.CmpOpGte) ||
			c == 0 && (e.Op == expr.CmpOpLte || e.Op == expr.CmpOpGte))
	})
	op := map[expr.CmpOp]string{expr.CmpOpLt: "<", expr.CmpOpLte: "<=", expr.CmpOpGt: ">", expr.CmpOpGte: ">="}[e.Op]
	d.say("%s %s 0x%x", r.name, op, e.Data)
}

// words writes a comparison as nft(8) does.
func (r register) words(e *expr.Cmp) string {
	op := ""
	if e.Op == expr.CmpOpNeq {
		op = "!= "
	}
	name, length, masked := strings.Cut(r.name, "/")
	switch {
	case strings.HasSuffix(name, "addr"):
		full := map[bool]int{true: 16, false: 4}[strings.HasPrefix(name, "ip6")]
		a, ok := netip.AddrFromSlice(append(slices.Clone(e.Data), make([]byte, max(full-len(e.Data), 0))...))
		switch {
		case !ok:
			return name
		case masked:
			return name + " " + op + a.String() + "/" + length
		case len(e.Data) < full:
			return fmt.Sprintf("%s %s%s/%d", name, op, a, 8*len(e.Data))
		}
		return name + " " + op + a.String()
	case strings.HasPrefix(name, "ct state ") && e.Op == expr.CmpOpNeq && len(bytes.Trim(e.Data, "\x00")) == 0:
		return name
	case name == "meta nfproto" && len(e.Data) == 1:
		return name + " " + op + map[byte]string{unix.NFPROTO_IPV4: "ipv4", unix.NFPROTO_IPV6: "ipv6"}[e.Data[0]]
	case strings.HasSuffix(name, "ifname"):
		return fmt.Sprintf("%s %s%q", name, op, strings.TrimRight(string(e.Data), "\x00"))
	}
	return fmt.Sprintf("%s %s0x%x", name, op, e.Data)
}

// lookup knows sets and maps of what is known.
func (d *decoder) lookup(e *expr.Lookup) {
	s := d.set(e.SetName)
	first := slot(e.SourceRegister)
	regs := d.regs
	find := func(p Packet) (*nftables.SetElement, tri) {
		if s == nil || s.concat {
			return nil, maybe
		}
		return s.find(gather(regs[:], first, p))
	}
	d.say("%s @%s", d.regs[first].name, e.SetName)
	if !e.IsDestRegSet {
		d.out.terms = append(d.out.terms, func(p Packet) tri {
			_, found := find(p)
			if e.Invert {
				return found.not()
			}
			return found
		})
		return
	}
	const verdictRegister = 0
	if e.DestRegister != verdictRegister {
		d.out.terms = append(d.out.terms, func(p Packet) tri { _, found := find(p); return found })
		d.regs[slot(e.DestRegister)] = register{"map", 16, func(Packet) bits { return unknown(16) }}
		return
	}
	d.out.lookup = func(p Packet) (verdict, tri) {
		el, found := find(p)
		if el == nil || el.VerdictData == nil {
			// Which of its verdicts it would be is not known: any may accept.
			return verdict{kind: accept}, found
		}
		return verdictOf(el.VerdictData), found
	}
}

// gather puts what registers hold together, each padded to four bytes.
func gather(regs []register, first int, p Packet) (all bits) {
	for i := first; i < len(regs) && regs[i].load != nil; {
		b := regs[i].load(p)
		all.value, all.known = append(all.value, b.value...), append(all.known, b.known...)
		for len(all.value)%4 != 0 {
			all.value, all.known = append(all.value, 0), append(all.known, 0xff)
		}
		i += (regs[i].size + 3) / 4
	}
	return all
}

// set reads a set of the table once.
func (d *decoder) set(name string) *set {
	key := d.table + " " + name
	if s, seen := d.ruleset.sets[key]; seen {
		return s
	}
	s := d.readSet(name)
	d.ruleset.sets[key] = s
	return s
}

func (d *decoder) readSet(name string) *set {
	family, table, _ := strings.Cut(d.table, " ")
	families := map[string]nftables.TableFamily{
		"ip": nftables.TableFamilyIPv4, "ip6": nftables.TableFamilyIPv6, "inet": nftables.TableFamilyINet, "bridge": nftables.TableFamilyBridge,
	}
	f, ok := families[family]
	if !ok {
		return nil
	}
	ns, err := d.conn.GetSetByName(&nftables.Table{Family: f, Name: table}, name)
	if err != nil {
		return nil
	}
	elems, err := d.conn.GetSetElements(ns)
	if err != nil {
		return nil
	}
	s := &set{table: d.table, name: name, interval: ns.Interval, concat: ns.Concatenation && ns.Interval, elems: elems}
	slices.SortStableFunc(s.elems, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	return s
}

// find looks for the element of a value.
func (s *set) find(b bits) (*nftables.SetElement, tri) {
	result := no
	for i, e := range s.elems {
		if len(e.Key) > len(b.value) {
			return nil, maybe
		}
		switch eq := b.equal(e.Key); {
		case eq == yes && !e.IntervalEnd:
			return &s.elems[i], yes
		case eq == maybe:
			result = maybe
		}
	}
	if !s.interval || result == maybe {
		return nil, result
	}
	return s.within(b)
}

// within looks for the interval that a value which is all known is in.
func (s *set) within(b bits) (found *nftables.SetElement, _ tri) {
	for i, e := range s.elems {
		if bytes.Compare(e.Key, b.value[:len(e.Key)]) > 0 {
			break
		}
		found = &s.elems[i]
	}
	if found == nil || found.IntervalEnd {
		return nil, no
	}
	return found, yes
}

// match knows iptables' matches of connections, and comments.
func (d *decoder) match(e *expr.Match) {
	switch info := e.Info.(type) {
	case *xt.Comment:
		d.out.comment = strings.TrimRight(string(*info), "\x00")
		return
	case *xt.ConntrackMtinfo3:
		if info.MatchFlags == uint16(xt.ConntrackState) {
			d.conntrack(info)
			return
		}
	case *xt.Tcp:
		if info.SrcPorts == anyPort && info.Option == 0 && info.FlagsMask == 0 && info.InvFlags == 0 {
			d.ports("tcp", info.DstPorts)
			return
		}
	case *xt.Udp:
		if info.SrcPorts == anyPort && info.InvFlags == 0 {
			d.ports("udp", info.DstPorts)
			return
		}
	case *xt.AddrTypeV1:
		if info.Source == 0 && info.Dest == 1<<unix.RTN_LOCAL && info.Flags == 0 {
			d.say("fib daddr type local")
			d.out.terms = append(d.out.terms, func(p Packet) tri { return p.toLocal(true) })
			return
		}
	}
	d.unclear(e.Name)
}

var anyPort = [2]uint16{0, 0xffff}

// ports matches the port that a packet goes to.
func (d *decoder) ports(proto string, to [2]uint16) {
	d.say("%s dport %d-%d", proto, to[0], to[1])
	d.out.terms = append(d.out.terms, func(p Packet) tri {
		return p.protocol(proto).and(p.port(fmt.Sprintf("%d:%d", to[0], to[1])))
	})
}

// conntrack matches states: bit 0 is INVALID, the others follow enum
// ip_conntrack_info.
func (d *decoder) conntrack(info *xt.ConntrackMtinfo3) {
	const established, fresh = 1 << 1, 1 << 3
	d.say("ct state %s", strings.Join(stateNames(uint32(info.StateMask)), ","))
	inverted := info.InvertFlags&uint16(xt.ConntrackState) != 0
	d.out.terms = append(d.out.terms, func(p Packet) tri {
		mine := uint16(fresh)
		if p.Answer {
			mine = established
		}
		return answer(info.StateMask&mine != 0 != inverted)
	})
}

func stateNames(mask uint32) (names []string) {
	for i, n := range []string{"invalid", "established", "related", "new", "", "", "untracked", "dnat"} {
		if mask&(1<<i) != 0 && n != "" {
			names = append(names, n)
		}
	}
	return names
}
