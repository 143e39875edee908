// Package ipam asks the configured IPAM plugin for addresses: in this process
// where it is one of ours, by executing it otherwise.
package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/sysctl"
	"github.com/netcleat/netcleat/pkg/undo"
)

// Add returns the addresses for the call. The caller owns them: it calls Del
// where the attachment fails afterwards.
//
// The caller has already created the interface, which proves that there was no
// such attachment before: therefore a delegate that was executed and failed is
// told DEL, as the specification asks (section 4, "Delegated plugins").
func Add(ctx context.Context, c *plugin.Call) (*current.Result, error) {
	res, err := add(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := sound(res); err != nil {
		return nil, errors.Join(fmt.Errorf("ipam %s: %w", c.Conf.IPAM.Type, err), release(Del(ctx, c)))
	}
	return res, nil
}

// release marks what keeps an address from being given back: then the
// attachment's record must stay.
func release(err error) error {
	if err == nil {
		return nil
	}
	return &undo.Failed{What: "release addresses", Err: err}
}

func add(ctx context.Context, c *plugin.Call) (*current.Result, error) {
	d, err := find(c)
	if err != nil {
		return nil, err
	}
	if d.builtin != nil {
		return c.Delegate(ctx, d.builtin)
	}
	res, err := d.add(ctx, c)
	if errors.Is(err, errNotRun) {
		return nil, err
	}
	if err != nil {
		return nil, errors.Join(err, release(d.run(context.WithoutCancel(ctx), c, plugin.Del)))
	}
	return res, nil
}

// Del gives back whatever the attachment holds. Holding nothing is success. It
// runs to its end also when ctx has been cancelled.
func Del(ctx context.Context, c *plugin.Call) error {
	return forward(context.WithoutCancel(ctx), c, plugin.Del)
}

// Release gives back, before the link goes, what can only be given back over it:
// a DHCP lease, whose server is told through the container's own interface. A
// main plugin's DEL calls it first, as long as the link is there, and Del last
// as ever, which then finds nothing to do. All other addresses wait for Del:
// they answer until the link is gone.
//
// Its failure must not keep the link: the caller notes it at most. Del speaks up
// where the trouble lasts.
func Release(ctx context.Context, c *plugin.Call) error {
	if c.Conf.IPAM.Type != dhcp {
		return nil
	}
	return Del(ctx, c)
}

// OverLink reports whether the IPAM plugin may ask over the attachment's link, as
// dhcp does: then the link has to lead somewhere before Add, and to keep its
// hardware address. host-local and static never do; of others nothing is known.
func OverLink(c *plugin.Call) bool {
	name := c.Conf.IPAM.Type
	return name == dhcp || name != "" && !c.Knows(name)
}

const dhcp = "dhcp"

// KeepIPv6Off turns IPv6 off on a link that the dhcp daemon is about to bring up:
// its leases are of IPv4, and the kernel would believe router advertisements before
// link.Configure turns IPv6 off. Other plugins may ask over IPv6.
func KeepIPv6Off(p *nl.Pair, c *plugin.Call) error {
	if c.Conf.IPAM.Type != dhcp {
		return nil
	}
	return sysctl.Set(p.NS, p.Gate, link.IPv6Off(c.IfName))
}

// RefuseDHCP refuses an ADD with dhcp for links at the other end of which no server
// can be: it would wait for one in vain.
func RefuseDHCP(c *plugin.Call) error {
	if c.Verb != plugin.Add || c.Conf.IPAM.Type != dhcp {
		return nil
	}
	return cnierr.Config("ipam dhcp: no DHCP server can be reached over an interface of %s: use host-local or static, or bridge or macvlan", c.Conf.Type)
}

// DelAfter removes the attachment's link by remove and gives back its addresses,
// each in the order in which nothing is handed out again that still answers. A
// link that cannot be removed keeps them. Where the configuration has no IPAM
// plugin only the link is removed.
func DelAfter(ctx context.Context, c *plugin.Call, remove func() error) error {
	if c.Conf.IPAM.Type == "" {
		return remove()
	}
	if err := Release(ctx, c); err != nil {
		c.Note("%v (the link goes all the same)", err)
	}
	if err := remove(); err != nil {
		return err
	}
	return Del(ctx, c)
}

// Status asks whether the IPAM plugin could serve an ADD.
func Status(ctx context.Context, c *plugin.Call) error { return forward(ctx, c, plugin.Status) }

// GC tells the IPAM plugin which attachments are valid.
func GC(ctx context.Context, c *plugin.Call) error { return forward(ctx, c, plugin.GC) }

func forward(ctx context.Context, c *plugin.Call, verb string) error {
	d, err := find(c)
	if err != nil {
		return err
	}
	if d.builtin == nil {
		return d.run(ctx, c, verb)
	}
	inner := *c
	inner.Verb = verb
	_, err = inner.Delegate(ctx, d.builtin)
	return err
}

// sound refuses results that no interface can be given: a delegate may be
// anybody's.
func sound(res *current.Result) error {
	if len(res.IPs) == 0 {
		return errors.New("IPAM plugin returned missing IP config")
	}
	if slices.Contains(res.Routes, nil) {
		return errors.New("result holds a route that is none")
	}
	seen := map[netip.Addr]bool{}
	for _, ip := range res.IPs {
		if ip == nil {
			return errors.New("result holds an address that is none")
		}
		p, err := link.PrefixOf(ip.Address)
		if err != nil {
			return err
		}
		gw := link.AddrOf(ip.Gateway)
		switch a := p.Addr(); {
		case p.Bits() == 0:
			return fmt.Errorf("address %s: prefix length 0", a)
		case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
			return fmt.Errorf("address %s: not one that an interface can have", a)
		case seen[a]:
			return fmt.Errorf("address %s: given twice", a)
		case len(ip.Gateway) > 0 && gw.Is4() != a.Is4():
			return fmt.Errorf("address %s: gateway %s is of another family", a, ip.Gateway)
		}
		seen[p.Addr()] = true
	}
	_, err := link.Routes(0, res.IPs, res.Routes)
	return err
}

// find resolves the delegate's name: the first match on CNI_PATH counts.
func find(c *plugin.Call) (*delegate, error) {
	name := c.Conf.IPAM.Type
	if name == "" {
		return nil, cnierr.Config("no plugin name provided")
	}
	path, err := lookPath(c.Path, name)
	if err != nil {
		return nil, err
	}
	d := &delegate{name: name, path: path}
	if p, ok := c.Builtin(name, path); ok {
		d.builtin = p
	}
	return d, nil
}
