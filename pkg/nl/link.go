package nl

import (
	"errors"
	"fmt"
	"net"

	codec "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Link is what the kernel says of a network interface.
type Link struct {
	Index        int
	Name         string
	Kind         string // "veth", "bridge", "macvlan" …; "" for a physical one
	MAC          net.HardwareAddr
	PermanentMAC net.HardwareAddr // since Linux 5.6, where the device has one
	MTU          int
	TxQLen       int
	Flags        uint32 // IFF_UP, IFF_PROMISC, …
	OperState    uint8  // RFC 2863: 6 is up
	Master       int    // index of the bridge, bond or vrf it is a port of; 0 is none
	Parent       int    // IFLA_LINK: a veth's peer, a macvlan's parent; 0 is none
	ParentNetns  int    // the namespace of Parent as this one numbers it; -1 is this one
	Group        uint32
	Alias        string
	AltNames     []string
	Info         []byte // IFLA_INFO_DATA: attributes that depend on Kind
	PortInfo     []byte // IFLA_INFO_SLAVE_DATA: attributes as a port of Master
	PortKind     string // IFLA_INFO_SLAVE_KIND
	Bus, BusAddr string // parent device: "pci", "0000:03:00.0"
}

// Up reports whether the link is administratively up.
func (l *Link) Up() bool { return l.Flags&unix.IFF_UP != 0 }

// OperUp is the OperState of a link that can carry traffic (RFC 2863).
const OperUp = 6

// LinkMessage starts an rtnetlink message about a link. With index 0 the kernel
// finds it by the IFLA_IFNAME that the caller adds.
func LinkMessage(what string, typ, flags uint16, index int) *Message {
	return NewMessage(what, typ, flags, Ifinfomsg(index)...)
}

// Ifinfomsg returns the fixed header of a link message, as a veth's peer needs it.
func Ifinfomsg(index int) []byte { return ifinfomsg(index, 0, 0) }

func ifinfomsg(index int, flags, change uint32) []byte {
	h := codec.NewIfInfomsg(unix.AF_UNSPEC)
	h.Index, h.Flags, h.Change = int32(index), flags, change
	return h.Serialize()
}

// IsName reports whether a link can have exactly that name. The kernel makes another
// of one with a percent sign (eth%d), and cuts one at its first zero; control
// characters it would take.
func IsName(s string) bool {
	const noBreakSpace = 0xa0 // to the kernel, which reads Latin-1
	if s == "" || len(s) >= unix.IFNAMSIZ || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || c == noBreakSpace || c == '/' || c == ':' || c == '%' {
			return false
		}
	}
	return true
}

// NewLink starts the message that creates a link of kind; the caller adds
// IFLA_LINKINFO and the rest. flags (IFF_UP or 0) are the link's at birth.
func NewLink(kind, name string, flags uint32) *Message {
	m := NewMessage("create "+kind+" "+name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfomsg(0, flags, flags)...)
	return m.String(unix.IFLA_IFNAME, name)
}

// SetLink starts the message that changes an existing link.
func SetLink(what string, index int) *Message {
	return LinkMessage(what, unix.RTM_NEWLINK, 0, index)
}

// SetLinkByName is SetLink for a link whose index the caller does not know.
func SetLinkByName(what, name string) *Message {
	return LinkMessage(what, unix.RTM_NEWLINK, 0, 0).String(unix.IFLA_IFNAME, name)
}

// SetFlags changes the link's IFF_ flags: those of mask take the bits of flags.
func SetFlags(what string, index int, flags, mask uint32) *Message {
	return NewMessage(what, unix.RTM_NEWLINK, 0, ifinfomsg(index, flags, mask)...)
}

// SetUp brings a link up.
func SetUp(name string, index int) *Message {
	return SetFlags("bring up "+name, index, unix.IFF_UP, unix.IFF_UP)
}

// SetDown takes a link down.
func SetDown(name string, index int) *Message {
	return SetFlags("take down "+name, index, 0, unix.IFF_UP)
}

// NoAddresses keeps the kernel from giving a port an IPv6 address: nobody can use it,
// and each costs three routes, which the kernel walks at every change.
func NoAddresses(name string, index int) *Message {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	m := SetLink("no address for "+name, index)
	m.Ignore = []unix.Errno{unix.EAFNOSUPPORT} // a host without IPv6
	return m.Begin(unix.IFLA_AF_SPEC).Begin(unix.AF_INET6).Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, none).End().End()
}

// DelLinkIndex deletes a link; one that is gone is success.
func DelLinkIndex(name string, index int) *Message {
	m := LinkMessage("delete "+name, unix.RTM_DELLINK, 0, index)
	m.Ignore = []unix.Errno{unix.ENODEV}
	return m
}

// DelLinkName deletes a link by its name; one that is gone is success.
func DelLinkName(name string) *Message {
	m := LinkMessage("delete "+name, unix.RTM_DELLINK, 0, 0).String(unix.IFLA_IFNAME, name)
	m.Ignore = []unix.Errno{unix.ENODEV}
	return m
}

// skipStats leaves the statistics, half of a link's answer, out of it.
const skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS

// LinkByName returns the link of that name or alternative name. A link that
// does not exist satisfies NotFound.
func (c *Conn) LinkByName(name string) (*Link, error) {
	attr := uint16(unix.IFLA_IFNAME)
	if len(name) >= unix.IFNAMSIZ {
		attr = unix.IFLA_ALT_IFNAME
	}
	m := LinkMessage(fmt.Sprintf("link %q", name), unix.RTM_GETLINK, 0, 0).String(attr, name)
	return c.link(m)
}

// LinkNamed is LinkByName for a link that has the name itself. The kernel also finds
// one that has it as an alternative name, which a container may give to any of its links.
func (c *Conn) LinkNamed(name string) (*Link, error) {
	l, err := c.LinkByName(name)
	if err == nil && l.Name != name {
		return nil, &Error{What: fmt.Sprintf("link %q, which is an alternative name of %q", name, l.Name), Errno: unix.ENODEV}
	}
	return l, err
}

// LinkByIndex returns the link with that index.
func (c *Conn) LinkByIndex(index int) (*Link, error) {
	return c.link(LinkMessage(fmt.Sprintf("link with index %d", index), unix.RTM_GETLINK, 0, index))
}

func (c *Conn) link(m *Message) (*Link, error) {
	var found *Link
	m.Uint32(unix.IFLA_EXT_MASK, skipStats)
	m.Reply = func(b []byte) (err error) {
		found, err = ParseLink(b)
		return err
	}
	if err := c.Do(m); err != nil {
		return nil, err
	}
	if found == nil {
		return nil, &Error{What: m.What, Errno: unix.ENODEV}
	}
	return found, nil
}

// Links returns all links of the namespace; its cost grows with their number,
// so no ADD or DEL may need it.
func (c *Conn) Links() ([]*Link, error) {
	var all []*Link
	m := LinkMessage("list links", unix.RTM_GETLINK, 0, 0)
	m.Uint32(unix.IFLA_EXT_MASK, skipStats)
	m.Reply = func(b []byte) error {
		l, err := ParseLink(b)
		all = append(all, l)
		return err
	}
	return all, c.Dump(m, func() { all = nil })
}

// LinksOfKind returns the namespace's links of a kind, which the kernel picks. It
// is for what happens once in a network's life: it looks at all links.
func (c *Conn) LinksOfKind(kind string) (all []*Link, err error) {
	m := LinkMessage("list links of kind "+kind, unix.RTM_GETLINK, 0, 0)
	m.Uint32(unix.IFLA_EXT_MASK, skipStats).Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, kind).End()
	m.Reply = func(b []byte) error {
		l, err := ParseLink(b)
		if err == nil && l.Kind == kind {
			all = append(all, l)
		}
		return err
	}
	return all, c.Dump(m, func() { all = nil })
}

// NotFound reports whether err says that a link, address, route … is not there.
func NotFound(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) ||
		errors.Is(err, unix.EADDRNOTAVAIL)
}

// ParseLink reads the body of an RTM_NEWLINK message.
func ParseLink(b []byte) (*Link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return nil, errors.New("link message cut short")
	}
	h := codec.DeserializeIfInfomsg(b)
	l := &Link{Index: int(h.Index), Flags: h.Flags, ParentNetns: -1}
	Attrs(b[unix.SizeofIfInfomsg:], l.attr)
	return l, nil
}

func (l *Link) attr(typ uint16, d []byte) {
	switch typ {
	case unix.IFLA_IFNAME:
		l.Name = cstring(d)
	case unix.IFLA_ADDRESS:
		l.MAC = append(net.HardwareAddr(nil), d...)
	case unix.IFLA_PERM_ADDRESS:
		l.PermanentMAC = append(net.HardwareAddr(nil), d...)
	case unix.IFLA_MTU:
		l.MTU = int(Uint32(d))
	case unix.IFLA_TXQLEN:
		l.TxQLen = int(Uint32(d))
	case unix.IFLA_OPERSTATE:
		l.OperState = Uint8(d)
	case unix.IFLA_MASTER:
		l.Master = int(Uint32(d))
	case unix.IFLA_LINK:
		l.Parent = int(Uint32(d))
	case unix.IFLA_LINK_NETNSID:
		l.ParentNetns = int(int32(Uint32(d)))
	case unix.IFLA_GROUP:
		l.Group = Uint32(d)
	case unix.IFLA_IFALIAS:
		l.Alias = cstring(d)
	case unix.IFLA_PROP_LIST:
		Attrs(d, func(_ uint16, name []byte) { l.AltNames = append(l.AltNames, cstring(name)) })
	case unix.IFLA_LINKINFO:
		Attrs(d, l.infoAttr)
	case unix.IFLA_PARENT_DEV_NAME:
		l.BusAddr = cstring(d)
	case unix.IFLA_PARENT_DEV_BUS_NAME:
		l.Bus = cstring(d)
	}
}

func (l *Link) infoAttr(typ uint16, d []byte) {
	switch typ {
	case unix.IFLA_INFO_KIND:
		l.Kind = cstring(d)
	case unix.IFLA_INFO_DATA:
		l.Info = append([]byte(nil), d...)
	case unix.IFLA_INFO_SLAVE_KIND:
		l.PortKind = cstring(d)
	case unix.IFLA_INFO_SLAVE_DATA:
		l.PortInfo = append([]byte(nil), d...)
	}
}
