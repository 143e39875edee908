package dhcpd

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// errGone says that a lease has lost its namespace or its link.
var errGone = errors.New("sandbox is gone")

// sandbox is the namespace of a lease and the link in it. It is open only as
// long as something is done there: a lease that held it would keep a dead
// container's namespace, and its addresses, alive.
type sandbox struct {
	ns   *netns.NS
	conn *nl.Conn
	link *nl.Link
	d    *daemon
}

// inSandbox opens the namespace at path and hands it to fn. Each caller occupies
// a thread of the process, so only a few are let in at a time; fn must not wait.
func (d *daemon) inSandbox(path string, fn func(*sandbox) error) (err error) {
	d.enter <- struct{}{}
	defer func() { <-d.enter }()
	ns, err := netns.Open(d.hostPrefix + path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	conn, err := nl.Dial(ns, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ns.ID.Cookie = netns.CookieOf(conn.Fd())
	return fn(&sandbox{ns: ns, conn: conn, d: d})
}

// in runs fn in the lease's sandbox if it still is the one that the lease was
// made for, and has the link.
func (d *daemon) in(r *record, fn func(*sandbox) error) error {
	return d.inSandbox(r.Netns, func(s *sandbox) error {
		if !s.ns.ID.Same(r.NetnsID) {
			return fmt.Errorf("%w: %s is another namespace now", errGone, r.Netns)
		}
		var err error
		s.link, err = s.conn.LinkByIndex(r.Index)
		if nl.NotFound(err) {
			return fmt.Errorf("%w: interface %s is not there", errGone, r.IfName)
		}
		if err != nil {
			return err
		}
		return fn(s)
	})
}

// up brings the link up where it is down.
func (s *sandbox) up() error {
	if s.link.Up() {
		return nil
	}
	return s.conn.Do(nl.SetUp(s.link.Name, s.link.Index))
}

// change puts what next says in the place of what old says, on the link. Either
// may be nil.
func (s *sandbox) change(old, next *binding, priority int) error {
	var msgs []*nl.Message
	moved := old == nil || next == nil || old.Address != next.Address
	if old != nil {
		for _, r := range old.Routes {
			if moved || !slices.Contains(next.Routes, r) {
				msgs = append(msgs, nl.DelRoute(s.route(r, priority)))
			}
		}
		if moved {
			// First: while it is the primary address of its subnet the next would be
			// its secondary, and go with it.
			msgs = append(msgs, nl.DelAddr(nl.Addr{Index: s.link.Index, Prefix: old.Address}))
		}
	}
	if next != nil && moved {
		add := nl.AddAddr(nl.Addr{Index: s.link.Index, Prefix: next.Address})
		add.Forgive = append(add.Forgive, unix.EEXIST)
		msgs = append(msgs, add)
	}
	if next != nil {
		for _, r := range next.Routes {
			if moved || !slices.Contains(old.Routes, r) {
				add := nl.AddRoute(s.route(r, priority))
				add.Forgive = append(add.Forgive, unix.EEXIST)
				msgs = append(msgs, add)
			}
		}
	}
	if len(msgs) == 0 {
		return nil
	}
	return s.conn.Do(msgs...)
}

func (s *sandbox) route(r route, priority int) nl.Route {
	out := nl.Route{Dst: r.Dst, Gateway: r.Gateway, Index: s.link.Index, Priority: uint32(priority)}
	if !r.Gateway.IsValid() || r.Gateway == (netip.Addr{}) {
		out.Scope = unix.RT_SCOPE_LINK
	}
	return out
}
