package nl

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	codec "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Route is a route of one namespace. Its zero fields take the kernel's
// defaults.
type Route struct {
	Dst      netip.Prefix
	Gateway  netip.Addr // invalid: directly on the link
	Source   netip.Addr // preferred source address; invalid: none
	Index    int        // of the outgoing link
	Table    uint32     // 0 is main (254)
	Priority uint32
	Scope    uint8
	Protocol uint8 // 0 is boot (3)
	Type     uint8 // 0 is unicast (1)
	MTU      int
	AdvMSS   int
	OnLink   bool // the gateway is reachable though no address says so
}

func (r Route) message(what string, typ, flags uint16) *Message {
	h := r.header(typ)
	m := NewMessage(what+" "+r.String(), typ, flags, h.Serialize()...)
	if r.Dst.Bits() > 0 {
		m.IP(unix.RTA_DST, r.Dst.Masked().Addr())
	}
	if r.Gateway.IsValid() {
		m.IP(unix.RTA_GATEWAY, r.Gateway)
	}
	if r.Source.IsValid() {
		m.IP(unix.RTA_PREFSRC, r.Source)
	}
	if r.Index != 0 {
		m.Uint32(unix.RTA_OIF, uint32(r.Index))
	}
	if r.Priority != 0 {
		m.Uint32(unix.RTA_PRIORITY, r.Priority)
	}
	if r.Table > math.MaxUint8 {
		m.Uint32(unix.RTA_TABLE, r.Table)
	}
	if r.MTU != 0 || r.AdvMSS != 0 {
		r.metrics(m)
	}
	return m
}

// header is the message's fixed part. What r leaves out is the kernel's default in
// a new route, and means any in one that is to be deleted.
func (r Route) header(typ uint16) *codec.RtMsg {
	h := codec.NewRtMsg()
	if typ == unix.RTM_DELROUTE {
		h = codec.NewRtDelMsg()
	}
	h.Family, h.Dst_len = family(r.Dst.Addr()), uint8(r.Dst.Bits())
	switch {
	case r.Table > math.MaxUint8: // in an attribute
		h.Table = unix.RT_TABLE_UNSPEC
	case r.Table != 0:
		h.Table = uint8(r.Table)
	}
	h.Protocol, h.Scope, h.Type = cmp.Or(r.Protocol, h.Protocol), cmp.Or(r.Scope, h.Scope), cmp.Or(r.Type, h.Type)
	if r.OnLink {
		h.Flags = unix.RTNH_F_ONLINK
	}
	return h
}

// rtmsg is the header of a query for routes or rules.
func rtmsg(h unix.RtMsg) []byte { return (&codec.RtMsg{RtMsg: h}).Serialize() }

func (r Route) metrics(m *Message) {
	m.Begin(unix.RTA_METRICS)
	if r.MTU != 0 {
		m.Uint32(unix.RTAX_MTU, uint32(r.MTU))
	}
	if r.AdvMSS != 0 {
		m.Uint32(unix.RTAX_ADVMSS, uint32(r.AdvMSS))
	}
	m.End()
}

// String returns the route as ip(8) would write it.
func (r Route) String() string {
	s := r.Dst.String()
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	if r.Table != 0 {
		s += fmt.Sprintf(" table %d", r.Table)
	}
	return s
}

// AddRoute adds a route. One that exists already is EEXIST for IPv4; for IPv6
// the kernel would join the two as one multipath route, so that is refused, too.
func AddRoute(r Route) *Message {
	return r.message("add route", unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
}

// PrependRoute adds a route before one with the same destination, table and
// priority: IPv4 takes the new one from now on, IPv6 makes one multipath route of
// both. The very same route is EEXIST.
func PrependRoute(r Route) *Message {
	return r.message("add route", unix.RTM_NEWROUTE, unix.NLM_F_CREATE)
}

// ReplaceRoute adds a route in the place of one with the same destination,
// table and priority.
func ReplaceRoute(r Route) *Message {
	return r.message("replace route", unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
}

// AppendRoute adds a route beside one with the same destination: IPv6 makes
// one multipath route of both.
func AppendRoute(r Route) *Message {
	return r.message("append route", unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_APPEND)
}

// SamePlace reports whether both are hops to one destination.
func (r Route) SamePlace(o Route) bool {
	return o.Table == r.Table && o.Dst == r.Dst && o.Priority == r.Priority
}

// Hops returns the requests that add the routes: the first to a destination by
// add, the others to it as further hops.
func Hops(routes []Route, add func(Route) *Message) []*Message {
	all := make([]*Message, 0, len(routes))
	for i, r := range routes {
		if slices.ContainsFunc(routes[:i], r.SamePlace) {
			all = append(all, AppendRoute(r))
		} else {
			all = append(all, add(r))
		}
	}
	return all
}

// SortOnLinkFirst orders routes so that each gateway can be reached when its route
// is added.
func SortOnLinkFirst(routes []Route) {
	rank := func(r Route) int {
		if r.Gateway.IsValid() {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(routes, func(a, b Route) int { return cmp.Compare(rank(a), rank(b)) })
}

// DelRoute removes a route; one that is gone is success.
func DelRoute(r Route) *Message {
	m := r.message("delete route", unix.RTM_DELROUTE, 0)
	m.Ignore = []unix.Errno{unix.ESRCH, unix.ENODEV}
	return m
}

// Routes returns the routes of one table in both families, or of all tables for
// table 0. Its cost grows with the namespace's routes.
func (c *Conn) Routes(table uint32) ([]Route, error) {
	var all []Route
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var some []Route
		m := NewMessage("list routes", unix.RTM_GETROUTE, 0, rtmsg(unix.RtMsg{Family: fam})...)
		m.Reply = func(b []byte) error {
			rs, err := ParseRoute(b)
			for _, r := range rs {
				// A kernel without IPv6 answers with what it has of the other families.
				if b[0] == fam && (table == 0 || r.Table == table) {
					some = append(some, r)
				}
			}
			return err
		}
		if err := c.Dump(m, func() { some = nil }); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// IsLocal reports whether the namespace takes packets to the address for its own.
// For an IPv6 address that does not hold as soon as it is added: a worker of the
// kernel puts it into the local table.
func (c *Conn) IsLocal(a netip.Addr) (local bool, err error) {
	h := rtmsg(unix.RtMsg{Family: family(a), Dst_len: uint8(a.BitLen())})
	m := NewMessage("route to "+a.String(), unix.RTM_GETROUTE, 0, h...).IP(unix.RTA_DST, a)
	m.Ignore = []unix.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.EACCES, unix.EINVAL}
	m.Reply = func(b []byte) error {
		local = len(b) >= unix.SizeofRtMsg && codec.DeserializeRtMsg(b).Type == unix.RTN_LOCAL
		return nil
	}
	return local, c.Do(m)
}

// ParseRoute reads the body of an RTM_NEWROUTE message: one route, or one for
// each hop of a multipath route. Cached routes are left out.
func ParseRoute(b []byte) ([]Route, error) {
	if len(b) < unix.SizeofRtMsg {
		return nil, errors.New("route message cut short")
	}
	h := codec.DeserializeRtMsg(b)
	if h.Flags&unix.RTM_F_CLONED != 0 {
		return nil, nil
	}
	r := Route{Table: uint32(h.Table), Protocol: h.Protocol, Scope: h.Scope, Type: h.Type}
	r.OnLink = h.Flags&unix.RTNH_F_ONLINK != 0
	dst := netip.IPv4Unspecified()
	if h.Family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	var hops []byte
	Attrs(b[unix.SizeofRtMsg:], func(typ uint16, d []byte) {
		switch typ {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(d)
		case unix.RTA_MULTIPATH:
			hops = d
		default:
			r.attr(typ, d)
		}
	})
	r.Dst = netip.PrefixFrom(dst, int(h.Dst_len))
	if hops == nil {
		return []Route{r}, nil
	}
	return r.multipath(hops), nil
}

func (r *Route) attr(typ uint16, d []byte) {
	switch typ {
	case unix.RTA_GATEWAY:
		r.Gateway, _ = netip.AddrFromSlice(d)
	case unix.RTA_PREFSRC:
		r.Source, _ = netip.AddrFromSlice(d)
	case unix.RTA_OIF:
		r.Index = int(Uint32(d))
	case unix.RTA_PRIORITY:
		r.Priority = Uint32(d)
	case unix.RTA_TABLE:
		r.Table = Uint32(d)
	case unix.RTA_METRICS:
		Attrs(d, func(typ uint16, d []byte) {
			switch typ {
			case unix.RTAX_MTU:
				r.MTU = int(Uint32(d))
			case unix.RTAX_ADVMSS:
				r.AdvMSS = int(Uint32(d))
			}
		})
	}
}

func (r Route) multipath(hops []byte) []Route {
	var all []Route
	for len(hops) >= unix.SizeofRtNexthop {
		hop := codec.DeserializeRtNexthop(hops)
		l := int(hop.RtNexthop.Len)
		if l < unix.SizeofRtNexthop || l > len(hops) {
			break
		}
		h := r
		h.Index, h.OnLink = int(hop.Ifindex), hop.Flags&unix.RTNH_F_ONLINK != 0
		Attrs(hops[unix.SizeofRtNexthop:l], h.attr)
		all = append(all, h)
		hops = hops[min((l+3)&^3, len(hops)):]
	}
	return all
}
