package ruleset

import (
	"bytes"
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
