package dhcpd

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// errGone says that a lease has lost its namespace or its link.
var errGone = errors.New("sandbox is gone")

// errHidden says that a lease's namespace may exist, but cannot be entered from
// here.
var errHidden = errors.New("sandbox cannot be reached")

// sandbox is the namespace of a lease and the link in it. It is open only as
// long as something is done there: a lease that held it would keep a dead
// container's namespace, and its addresses, alive.
type sandbox struct {
	ns   *netns.NS
	conn *nl.Conn
	link *nl.Link
	d    *daemon
}

// inSandbox hands the namespace that open opens to fn. Each caller occupies a
// thread of the process, so only a few are let in at a time; fn must not wait.
func (d *daemon) inSandbox(open func() (*netns.NS, error), fn func(*sandbox) error) (err error) {
	d.enter <- struct{}{}
	defer func() { <-d.enter }()
	ns, err := open()
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

// at opens the namespace at path.
func (d *daemon) at(path string) (*netns.NS, error) {
	ns, err := netns.Open(d.hostPrefix + path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	return ns, err
}

// of opens the sandbox that the lease was made for: at its path or, where that has
// come to lead nowhere or elsewhere, wherever it is now. A path proves no end: the
// container may run on, and use the address.
func (d *daemon) of(r *record) (*netns.NS, error) {
	ns, err := netns.Open(d.hostPrefix + r.Netns)
	if err == nil {
		if err = ns.Cookie(); err == nil && ns.ID.Same(r.NetnsID) {
			return ns, nil
		}
		_ = ns.Close() // it was only looked at
	}
	j, err := evidence.New()
	if err != nil {
		return nil, err
	}
	defer func() { _ = j.Close() }() // it was only asked
	ns, v := j.Open(d.hostPrefix+r.Netns, r.NetnsID)
	switch {
	case ns != nil:
		return ns, nil
	case v.State == evidence.Dead:
		return nil, fmt.Errorf("%w: %s", errGone, v.Why)
	}
	return nil, fmt.Errorf("%w: %s", errHidden, v.Why)
}

// in runs fn in the lease's sandbox, where that still has the link.
func (d *daemon) in(r *record, fn func(*sandbox) error) error {
	open := func() (*netns.NS, error) { return d.of(r) }
	return d.inSandbox(open, func(s *sandbox) (err error) {
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
		add.Ignore = append(add.Ignore, unix.EEXIST)
		msgs = append(msgs, add)
	}
	if next != nil {
		for _, r := range next.Routes {
			if moved || !slices.Contains(old.Routes, r) {
				add := nl.AddRoute(s.route(r, priority))
				add.Ignore = append(add.Ignore, unix.EEXIST)
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
