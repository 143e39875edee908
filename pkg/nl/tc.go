package nl

import (
	"errors"
	"fmt"

	codec "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A TCHandle names a qdisc or class: major number in the upper half, minor in
// the lower.
type TCHandle uint32

// The places of a link that a qdisc can be attached to.
const (
	TCRoot    TCHandle = 0xffff_ffff // TC_H_ROOT
	TCIngress TCHandle = 0xffff_fff1 // TC_H_INGRESS
)

// Attributes of traffic control messages.
const (
	TCAKind    = 1
	TCAOptions = 2
)

const (
	tcPrioShift  = 16
	rtmNewClass  = 40 // RTM_NEWTCLASS
	rtmNewFilter = 44 // RTM_NEWTFILTER
)

// TC is what a traffic control message is about: a qdisc, class or filter of a
// link.
type TC struct {
	Index   int
	Handle  TCHandle
	Parent  TCHandle
	Info    uint32 // of a filter: priority and protocol, see FilterInfo
	Kind    string // "tbf", "htb", "u32" …
	Options []byte // attributes that depend on Kind
}

// FilterInfo is the Info of a filter: its priority, and the protocol in host
// byte order (unix.ETH_P_ALL …).
func FilterInfo(priority, protocol uint16) uint32 {
	return uint32(priority)<<tcPrioShift | uint32(NetworkOrder(protocol))
}

func (t TC) message(what string, typ, flags uint16) *Message {
	h := codec.TcMsg{Ifindex: int32(t.Index), Handle: uint32(t.Handle), Parent: uint32(t.Parent), Info: t.Info}
	m := NewMessage(what, typ, flags, h.Serialize()...)
	if t.Kind != "" {
		m.String(TCAKind, t.Kind)
	}
	return m
}

// NewQdisc starts the message that adds a qdisc; the caller adds TCAOptions.
func NewQdisc(what string, t TC) *Message {
	return t.message(what, unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
}

// NewClass starts the message that adds a class; the caller adds TCAOptions.
func NewClass(what string, t TC) *Message {
	return t.message(what, rtmNewClass, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
}

// NewFilter starts the message that adds a filter; the caller adds TCAOptions.
func NewFilter(what string, t TC) *Message {
	return t.message(what, rtmNewFilter, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
}

// DelQdisc removes a qdisc with what is attached to it. One that is gone, or
// whose place another one with a different handle has taken, is success.
func DelQdisc(what string, t TC) *Message {
	m := t.message(what, unix.RTM_DELQDISC, 0)
	m.Ignore = []unix.Errno{unix.ENOENT, unix.EINVAL, unix.ENODEV}
	return m
}

// QdiscAt returns the qdisc at a place of a link. Where there is none but the
// kernel's own that does not queue, the error satisfies NotFound.
func (c *Conn) QdiscAt(index int, place TCHandle) (*TC, error) {
	t := TC{Index: index, Parent: place}
	return c.tc(t.message("qdisc of link", unix.RTM_GETQDISC, getFlags))
}

// ClassOf returns a class of a link.
func (c *Conn) ClassOf(index int, handle TCHandle) (*TC, error) {
	t := TC{Index: index, Handle: handle}
	return c.tc(t.message("class of link", rtmNewClass+2, getFlags))
}

// getFlags: the kernel takes the answer for an announcement, which who caused it
// sees only with NLM_F_ECHO.
const getFlags = unix.NLM_F_ECHO

func (c *Conn) tc(m *Message) (*TC, error) {
	var found *TC
	m.Reply = func(b []byte) (err error) {
		found, err = ParseTC(b)
		return err
	}
	if err := c.Do(m); err != nil {
		return nil, err
	}
	if found == nil {
		return nil, &Error{What: m.What, Errno: unix.ENOENT}
	}
	return found, nil
}

// Filters returns the filters of a qdisc or class.
func (c *Conn) Filters(index int, parent TCHandle) ([]*TC, error) {
	var all []*TC
	m := TC{Index: index, Parent: parent}.message(fmt.Sprintf("filters of %x", uint32(parent)), rtmNewFilter+2, 0)
	m.Reply = func(b []byte) error {
		t, err := ParseTC(b)
		all = append(all, t)
		return err
	}
	return all, c.Dump(m, func() { all = nil })
}

// ParseTC reads the body of a traffic control message.
func ParseTC(b []byte) (*TC, error) {
	if len(b) < codec.SizeofTcMsg {
		return nil, errors.New("traffic control message cut short")
	}
	h := codec.DeserializeTcMsg(b)
	t := &TC{Index: int(h.Ifindex), Handle: TCHandle(h.Handle), Parent: TCHandle(h.Parent), Info: h.Info}
	Attrs(b[codec.SizeofTcMsg:], func(typ uint16, d []byte) {
		switch typ {
		case TCAKind:
			t.Kind = cstring(d)
		case TCAOptions:
			t.Options = append([]byte(nil), d...)
		}
	})
	return t, nil
}
