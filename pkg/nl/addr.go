package nl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	codec "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Addr is an address of a link.
type Addr struct {
	Index  int
	Prefix netip.Prefix // the address with its mask's length, host bits kept
	Flags  uint32       // IFA_F_NODAD, IFA_F_TENTATIVE, IFA_F_DADFAILED …
	Scope  uint8
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func addrMessage(what string, typ, flags uint16, a Addr) *Message {
	h := codec.NewIfAddrmsg(int(family(a.Prefix.Addr())))
	h.Prefixlen, h.Scope, h.Index = uint8(a.Prefix.Bits()), a.Scope, uint32(a.Index)
	m := NewMessage(fmt.Sprintf("%s %s", what, a.Prefix), typ, flags, h.Serialize()...)
	m.IP(unix.IFA_LOCAL, a.Prefix.Addr()).IP(unix.IFA_ADDRESS, a.Prefix.Addr())
	if a.Flags != 0 {
		m.Uint32(unix.IFA_FLAGS, a.Flags)
	}
	return m
}

// AddAddr adds an address to a link; one that exists is EEXIST. An IPv4
// address gets its prefix's broadcast address where it has one.
func AddAddr(a Addr) *Message {
	m := addrMessage("add address", unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a)
	if p := a.Prefix; p.Addr().Is4() && p.Bits() < 31 {
		b := p.Addr().As4()
		v := binary.BigEndian.Uint32(b[:]) | ^uint32(0)>>p.Bits()
		m.Attr(unix.IFA_BROADCAST, binary.BigEndian.AppendUint32(nil, v))
	}
	return m
}

// DelAddr removes an address; one that is gone is success.
func DelAddr(a Addr) *Message {
	m := addrMessage("delete address", unix.RTM_DELADDR, 0, a)
	m.Ignore = []unix.Errno{unix.EADDRNOTAVAIL, unix.ENODEV}
	return m
}

// Addrs returns the addresses of one link, or of all for index 0.
func (c *Conn) Addrs(index int) ([]Addr, error) {
	if err := c.StrictDumps(); err != nil {
		return nil, err
	}
	h := codec.NewIfAddrmsg(unix.AF_UNSPEC)
	h.Index = uint32(index)
	var all []Addr
	m := NewMessage("list addresses", unix.RTM_GETADDR, 0, h.Serialize()...)
	m.Reply = func(b []byte) error {
		a, err := ParseAddr(b)
		if err == nil && (index == 0 || a.Index == index) {
			all = append(all, a)
		}
		return err
	}
	return all, c.Dump(m, func() { all = nil })
}

// HasAddr reports whether a link of the namespace has the address, also one that
// is not usable yet (see IsLocal).
func (c *Conn) HasAddr(a netip.Addr) (has bool, err error) {
	if a.Is4() {
		return c.IsLocal(a)
	}
	h := codec.NewIfAddrmsg(int(family(a))).Serialize()
	m := NewMessage("look for address "+a.String(), unix.RTM_GETADDR, 0, h...).IP(unix.IFA_ADDRESS, a)
	m.Ignore = []unix.Errno{unix.EADDRNOTAVAIL, unix.EOPNOTSUPP}
	m.Reply = func([]byte) error {
		has = true
		return nil
	}
	return has, c.Do(m)
}

// ParseAddr reads the body of an RTM_NEWADDR message.
func ParseAddr(b []byte) (Addr, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return Addr{}, errors.New("address message cut short")
	}
	h := codec.DeserializeIfAddrmsg(b)
	a := Addr{Index: int(h.Index), Flags: uint32(h.Flags), Scope: h.Scope}
	var local, address netip.Addr
	Attrs(b[unix.SizeofIfAddrmsg:], func(typ uint16, d []byte) {
		switch typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(d)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(d)
		case unix.IFA_FLAGS:
			a.Flags = Uint32(d)
		}
	})
	if !local.IsValid() {
		local = address // IPv6 has no IFA_LOCAL but on point-to-point links
	}
	a.Prefix = netip.PrefixFrom(local, int(h.Prefixlen))
	return a, nil
}

// Neigh is a neighbour entry: the hardware address behind an address of a link.
type Neigh struct {
	Index int
	IP    netip.Addr
	MAC   net.HardwareAddr
	State uint16 // NUD_REACHABLE, NUD_STALE …
	// Bridge is set where the entry is a bridge's, of which Index is the port: the
	// bridge's own index.
	Bridge int
}

// SetNeigh adds or replaces a neighbour entry.
func SetNeigh(n Neigh) *Message {
	return n.message("set", unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE).Attr(unix.NDA_LLADDR, n.MAC)
}

// DelNeigh deletes a neighbour entry; one that is gone is success.
func DelNeigh(n Neigh) *Message {
	m := n.message("delete", unix.RTM_DELNEIGH, 0)
	m.Ignore = []unix.Errno{unix.ENOENT, unix.ENODEV}
	return m
}

func (n Neigh) message(what string, typ, flags uint16) *Message {
	h := ndmsg(unix.NdMsg{Family: family(n.IP), Ifindex: int32(n.Index), State: n.State})
	return NewMessage(what+" neighbour "+n.IP.String(), typ, flags, h...).IP(unix.NDA_DST, n.IP)
}

// ndmsg is the header of messages about neighbours and forwarding entries.
func ndmsg(h unix.NdMsg) []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0], b[10], b[11] = h.Family, h.Flags, h.Type
	binary.NativeEndian.PutUint32(b[4:], uint32(h.Ifindex))
	binary.NativeEndian.PutUint16(b[8:], h.State)
	return b
}

// Neighs returns the neighbours of a family: unix.AF_INET, AF_INET6, or
// AF_BRIDGE for what bridges have learnt of their ports. Its cost grows with
// their number.
func (c *Conn) Neighs(family uint8) ([]Neigh, error) {
	var all []Neigh
	m := NewMessage("list neighbours", unix.RTM_GETNEIGH, 0, ndmsg(unix.NdMsg{Family: family})...)
	m.Reply = func(b []byte) error {
		n, err := parseNeigh(b)
		if err == nil && b[0] == family {
			all = append(all, n)
		}
		return err
	}
	return all, c.Dump(m, func() { all = nil })
}

// parseNeigh reads the body of an RTM_NEWNEIGH message.
func parseNeigh(b []byte) (Neigh, error) {
	if len(b) < unix.SizeofNdMsg {
		return Neigh{}, errors.New("neighbour message cut short")
	}
	n := Neigh{Index: int(binary.NativeEndian.Uint32(b[4:])), State: binary.NativeEndian.Uint16(b[8:])}
	Attrs(b[unix.SizeofNdMsg:], func(typ uint16, d []byte) {
		switch typ {
		case unix.NDA_DST:
			n.IP, _ = netip.AddrFromSlice(d)
		case unix.NDA_LLADDR:
			n.MAC = append(net.HardwareAddr(nil), d...)
		case unix.NDA_MASTER:
			n.Bridge = int(Uint32(d))
		}
	})
	return n, nil
}
