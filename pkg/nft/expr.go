package nft

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// Expr is one expression of a rule.
type Expr struct {
	name  string
	write func(*nl.Message)
}

// Reg is a 32-bit register, from 0 on. Values longer than four bytes take
// several in a row.
type Reg uint32

// Op compares.
type Op uint32

// The comparisons that rules are made of.
const (
	Equal Op = unix.NFT_CMP_EQ
	Not   Op = unix.NFT_CMP_NEQ
)

// Meta loads a property of the packet (unix.NFT_META_IIFNAME …).
func Meta(key uint32, dst Reg) Expr {
	return Expr{"meta", func(m *nl.Message) {
		m.Attr(unix.NFTA_META_KEY, be32(key)).Attr(unix.NFTA_META_DREG, dst.kernel())
	}}
}

// SetMeta stores a register as a property of the packet.
func SetMeta(key uint32, src Reg) Expr {
	return Expr{"meta", func(m *nl.Message) {
		m.Attr(unix.NFTA_META_KEY, be32(key)).Attr(unix.NFTA_META_SREG, src.kernel())
	}}
}

// Header loads bytes of a header: base is unix.NFT_PAYLOAD_LL_HEADER and so on.
func Header(base, offset, length uint32, dst Reg) Expr {
	return Expr{"payload", func(m *nl.Message) {
		m.Attr(unix.NFTA_PAYLOAD_DREG, dst.kernel()).Attr(unix.NFTA_PAYLOAD_BASE, be32(base))
		m.Attr(unix.NFTA_PAYLOAD_OFFSET, be32(offset)).Attr(unix.NFTA_PAYLOAD_LEN, be32(length))
	}}
}

// Cmp ends the rule unless the register compares so with the value.
func Cmp(op Op, src Reg, value []byte) Expr {
	return Expr{"cmp", func(m *nl.Message) {
		m.Attr(unix.NFTA_CMP_SREG, src.kernel()).Attr(unix.NFTA_CMP_OP, be32(uint32(op)))
		m.Begin(unix.NFTA_CMP_DATA|unix.NLA_F_NESTED).Attr(unix.NFTA_DATA_VALUE, value).End()
	}}
}

// Bitwise computes register & mask ^ xor in place.
func Bitwise(reg Reg, mask, xor []byte) Expr {
	return Expr{"bitwise", func(m *nl.Message) {
		m.Attr(unix.NFTA_BITWISE_SREG, reg.kernel()).Attr(unix.NFTA_BITWISE_DREG, reg.kernel())
		m.Attr(unix.NFTA_BITWISE_LEN, be32(uint32(len(mask))))
		m.Begin(unix.NFTA_BITWISE_MASK|unix.NLA_F_NESTED).Attr(unix.NFTA_DATA_VALUE, mask).End()
		m.Begin(unix.NFTA_BITWISE_XOR|unix.NLA_F_NESTED).Attr(unix.NFTA_DATA_VALUE, xor).End()
	}}
}

// Fib loads what the routing table says of an address (unix.NFTA_FIB_F_DADDR,
// unix.NFT_FIB_RESULT_ADDRTYPE …).
func Fib(flags, result uint32, dst Reg) Expr {
	return Expr{"fib", func(m *nl.Message) {
		m.Attr(unix.NFTA_FIB_DREG, dst.kernel()).Attr(unix.NFTA_FIB_RESULT, be32(result)).Attr(unix.NFTA_FIB_FLAGS, be32(flags))
	}}
}

// Ct loads a property of the packet's connection (unix.NFT_CT_STATUS …).
func Ct(key uint32, dst Reg) Expr {
	return Expr{"ct", func(m *nl.Message) {
		m.Attr(unix.NFTA_CT_KEY, be32(key)).Attr(unix.NFTA_CT_DREG, dst.kernel())
	}}
}

// InSet ends the rule unless the set holds what is in the registers from src on.
func InSet(set string, src Reg) Expr {
	return Expr{"lookup", func(m *nl.Message) {
		m.String(unix.NFTA_LOOKUP_SET, set).Attr(unix.NFTA_LOOKUP_SREG, src.kernel())
	}}
}

// InMap loads what the map has for the registers from src on into register 0;
// the rule ends where that is nothing.
func InMap(set string, src Reg) Expr {
	return Expr{"lookup", func(m *nl.Message) {
		InSet(set, src).write(m)
		m.Attr(unix.NFTA_LOOKUP_DREG, Reg(0).kernel())
	}}
}

// Verdict is what a rule decides.
type Verdict int32

// The verdicts of nf_tables.
const (
	Drop   Verdict = 0
	Accept Verdict = 1
	jump   Verdict = -3 // unix.NFT_JUMP
	goTo   Verdict = -4 // unix.NFT_GOTO
	Return Verdict = -5 // unix.NFT_RETURN
)

// Decide ends the evaluation with a verdict.
func Decide(v Verdict) Expr { return verdict(v, "") }

// Jump goes on in a chain and comes back.
func Jump(chain string) Expr { return verdict(jump, chain) }

// Goto goes on in a chain.
func Goto(chain string) Expr { return verdict(goTo, chain) }

func verdict(v Verdict, chain string) Expr {
	return Expr{"immediate", func(m *nl.Message) {
		m.Attr(unix.NFTA_IMMEDIATE_DREG, be32(unix.NFT_REG_VERDICT))
		m.Begin(unix.NFTA_IMMEDIATE_DATA | unix.NLA_F_NESTED)
		m.Begin(unix.NFTA_DATA_VERDICT|unix.NLA_F_NESTED).Attr(unix.NFTA_VERDICT_CODE, be32(uint32(v)))
		if chain != "" {
			m.String(unix.NFTA_VERDICT_CHAIN, chain)
		}
		m.End().End()
	}}
}

// Counter counts packets and bytes, as all rules of iptables-nft do.
func Counter() Expr {
	return Expr{"counter", func(m *nl.Message) {
		m.Attr(unix.NFTA_COUNTER_BYTES, be64(0)).Attr(unix.NFTA_COUNTER_PACKETS, be64(0))
	}}
}

// Masquerade gives the packet the address of the interface that it leaves by.
func Masquerade() Expr { return Expr{"masq", func(*nl.Message) {}} }

// DNAT sends the packet to the address in register addr and the port in register
// port; with port NoPort the port stays.
func DNAT(f Family, addr, port Reg) Expr {
	return Expr{"nat", func(m *nl.Message) {
		m.Attr(unix.NFTA_NAT_TYPE, be32(unix.NFT_NAT_DNAT)).Attr(unix.NFTA_NAT_FAMILY, be32(uint32(f)))
		m.Attr(unix.NFTA_NAT_REG_ADDR_MIN, addr.kernel())
		if port != NoPort {
			m.Attr(unix.NFTA_NAT_REG_PROTO_MIN, port.kernel())
		}
	}}
}

// NoPort is no register.
const NoPort Reg = ^Reg(0)

// IfName compares an interface's name: key is unix.NFT_META_IIFNAME or
// unix.NFT_META_OIFNAME.
func IfName(key uint32, op Op, name string) []Expr {
	return []Expr{Meta(key, 0), Cmp(op, 0, PadName(name))}
}

// PadName returns an interface's name as sets and comparisons hold it.
func PadName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// Side is source or destination.
type Side uint32

// The sides of a packet.
const (
	Source Side = iota
	Destination
)

// LoadAddr loads an address of the packet: one register for IPv4, four for IPv6.
func LoadAddr(v6 bool, s Side, dst Reg) Expr {
	at, size := addrAt(v6, s)
	return Header(unix.NFT_PAYLOAD_NETWORK_HEADER, at, size, dst)
}

// addrAt is where an address is in the packet's header, and its size.
func addrAt(v6 bool, s Side) (at, size uint32) {
	if v6 {
		return 8 + 16*uint32(s), 16
	}
	return 12 + 4*uint32(s), 4
}

// Addr compares an address of the packet with a prefix. The rule must be for
// packets of the prefix's family.
func Addr(s Side, op Op, p netip.Prefix) []Expr {
	p = p.Masked()
	if bits := p.Bits(); bits > 0 && bits < p.Addr().BitLen() && bits%8 == 0 {
		// nft(8) compares whole bytes without a mask, and prints only that as a prefix.
		at, _ := addrAt(p.Addr().Is6(), s)
		e := Header(unix.NFT_PAYLOAD_NETWORK_HEADER, at, uint32(bits/8), 0)
		return []Expr{e, Cmp(op, 0, p.Addr().AsSlice()[:bits/8])}
	}
	list := []Expr{LoadAddr(p.Addr().Is6(), s, 0)}
	if p.Bits() < p.Addr().BitLen() {
		zero := make([]byte, p.Addr().BitLen()/8)
		list = append(list, Bitwise(0, mask(p), zero))
	}
	return append(list, Cmp(op, 0, p.Addr().AsSlice()))
}

func mask(p netip.Prefix) []byte {
	b := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}

// Proto compares the packet's network protocol, which rules in an inet or bridge
// table must do before they look at addresses.
func Proto(v6 bool) []Expr {
	proto := byte(unix.NFPROTO_IPV4)
	if v6 {
		proto = unix.NFPROTO_IPV6
	}
	return []Expr{Meta(unix.NFT_META_NFPROTO, 0), Cmp(Equal, 0, []byte{proto})}
}

// Native32 is a value of the host's byte order, as marks are.
func Native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// Native16 is as Native32, for ports in matches of iptables'.
func Native16(v uint16) []byte { return binary.NativeEndian.AppendUint16(nil, v) }

// Join makes one list of several.
func Join(lists ...[]Expr) []Expr {
	var all []Expr
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}
