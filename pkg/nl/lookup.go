package nl

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// RouteTo returns the entry of the routing tables by which the namespace sends
// to addr. None satisfies NoRoute.
func (c *Conn) RouteTo(addr netip.Addr) (Route, error) {
	return c.routeFor(addr, 0, func(*Message) {})
}

// RouteFrom is RouteTo for what comes from src: over the link of index in, or
// for 0 from the namespace itself.
func (c *Conn) RouteFrom(src, addr netip.Addr, in int) (Route, error) {
	return c.routeFor(addr, uint8(src.BitLen()), func(m *Message) {
		m.IP(unix.RTA_SRC, src)
		if in != 0 {
			m.Uint32(unix.RTA_IIF, uint32(in))
		}
	})
}

func (c *Conn) routeFor(addr netip.Addr, srcLen uint8, ask func(*Message)) (Route, error) {
	h := unix.RtMsg{Family: family(addr), Dst_len: uint8(addr.BitLen()), Src_len: srcLen, Flags: unix.RTM_F_FIB_MATCH}
	if addr.Is4() { // IPv6 always names the table, and refuses the flag once dumps are strict
		h.Flags |= unix.RTM_F_LOOKUP_TABLE
	}
	m := NewMessage(fmt.Sprintf("route to %s", addr), unix.RTM_GETROUTE, 0, rtmsg(h)...).IP(unix.RTA_DST, addr)
	ask(m)
	var found []Route
	m.Reply = func(b []byte) (err error) {
		found, err = ParseRoute(b)
		return err
	}
	if err := c.Do(m); err != nil {
		return Route{}, err
	}
	if len(found) == 0 {
		return Route{}, &Error{What: m.What, Errno: unix.ENETUNREACH}
	}
	return found[0], nil
}

// NoRoute reports whether err says that there is no route, or that the
// namespace does not speak the address's family.
func NoRoute(err error) bool {
	for _, e := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ESRCH, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// DefaultRoute returns the main table's default route: IPv4's, or IPv6's where
// IPv4 has none. None satisfies NoRoute.
//
// It asks for the way to an address that hardly anybody has a narrower route to,
// so that the answer costs the same in a table of a million routes. Only where
// somebody has, or a rule leads elsewhere, it reads the table.
func (c *Conn) DefaultRoute() (Route, error) {
	for _, probe := range []string{"240.0.0.1", "3fff:ffff::1"} {
		r, err := c.RouteTo(netip.MustParseAddr(probe))
		if NoRoute(err) {
			continue
		}
		if err != nil {
			return Route{}, err
		}
		if r.isDefault() && r.Table == unix.RT_TABLE_MAIN {
			return r, nil
		}
		return c.searchDefault()
	}
	return Route{}, &Error{What: "default route", Errno: unix.ENETUNREACH}
}

func (r Route) isDefault() bool {
	return r.Dst.Bits() == 0 && r.Index != 0 && (r.Type == unix.RTN_UNICAST || r.Type == 0)
}

// searchDefault reads the main table for the default route of least priority
// value.
func (c *Conn) searchDefault() (best Route, err error) {
	all, err := c.Routes(unix.RT_TABLE_MAIN)
	if err != nil {
		return Route{}, err
	}
	for _, r := range all {
		if r.isDefault() && (best.Index == 0 || r.Dst.Addr().Is4() == best.Dst.Addr().Is4() && r.Priority < best.Priority) {
			best = r
		}
	}
	if best.Index == 0 {
		return Route{}, &Error{What: "default route", Errno: unix.ENETUNREACH}
	}
	return best, nil
}
