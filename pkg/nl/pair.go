package nl

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/netns"
)

// Pair is the host and the sandbox of one call, each with an open rtnetlink
// socket. The host is the namespace that the plugin runs in.
type Pair struct {
	Host    *Conn
	Sandbox *Conn     // nil when the sandbox is gone, which only DEL allows
	NS      *netns.NS // the sandbox's namespace; nil with Sandbox
	Gate    gate.Gate
}

// Open opens both namespaces. A sandbox path that is empty or no longer names a
// namespace is no error: the Pair then has no Sandbox.
func Open(sandbox string, g gate.Gate) (_ *Pair, err error) {
	p := &Pair{Gate: g}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.Host, err = Dial(nil, unix.NETLINK_ROUTE, g); err != nil {
		return nil, err
	}
	if sandbox == "" {
		return p, nil
	}
	ns, err := netns.Open(sandbox)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	return p, p.Enter(ns)
}

// Enter makes ns, which is p's from then on, the sandbox of a pair that has none.
func (p *Pair) Enter(ns *netns.NS) (err error) {
	p.NS = ns
	if p.Sandbox, err = Dial(ns, unix.NETLINK_ROUTE, p.Gate); err != nil {
		return err
	}
	ns.ID.Cookie = netns.CookieOf(p.Sandbox.fd)
	return nil
}

// Forget closes the sandbox's half, as if it were gone: DEL does so where the
// path has come to name another container's namespace.
func (p *Pair) Forget() error {
	if p.Sandbox == nil {
		return nil
	}
	err := errors.Join(p.Sandbox.Close(), p.NS.Close())
	p.Sandbox, p.NS = nil, nil
	return err
}

// Close closes both halves.
func (p *Pair) Close() error {
	var errs []error
	if p.Host != nil {
		errs = append(errs, p.Host.Close())
	}
	if p.Sandbox != nil {
		errs = append(errs, p.Sandbox.Close())
	}
	if p.NS != nil {
		errs = append(errs, p.NS.Close())
	}
	return errors.Join(errs...)
}
