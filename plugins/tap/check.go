package tap

import (
	"context"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// check answers CHECK: what ADD reported is still so, and the device is one that
// the configuration asks for.
func check(ctx context.Context, c *plugin.Call, conf config) error {
	return ipam.Check(ctx, c, "Required prevResult missing", func(p *nl.Pair, res *current.Result) error {
		return conf.compare(p, c, res)
	})
}

func (c *config) compare(p *nl.Pair, call *plugin.Call, res *current.Result) error {
	want, at := link.Find(res, call.IfName, call.Netns)
	if want == nil {
		return cnierr.Check("prevResult has no interface %s in %s", call.IfName, call.Netns)
	}
	l, err := link.Expect(p.Sandbox, want, kind)
	if err != nil {
		return err
	}
	if err := c.compareDevice(l); err != nil {
		return err
	}
	if err := c.compareBridge(p, l); err != nil {
		return err
	}
	ips := link.Owned(res.IPs, at)
	if err := link.CheckAddrs(p.Sandbox, l, ips); err != nil {
		return err
	}
	return link.CheckRoutes(p.Sandbox, l, ips, res.Routes)
}

// What the kernel tells of a tap (if_link.h).
const (
	tunOwner      = 1
	tunGroup      = 2
	tunType       = 3
	tunMultiQueue = 7
)

func (c *config) compareDevice(l *nl.Link) error {
	info := map[uint16][]byte{}
	nl.Attrs(l.Info, func(typ uint16, d []byte) { info[typ] = d })
	// No owner is no attribute, but any other difference is one.
	ownedBy := func(typ uint16, want *uint32) bool {
		return want == nil || len(info[typ]) == 4 && nl.Uint32(info[typ]) == *want
	}
	is := func(typ uint16) byte {
		if len(info[typ]) == 0 {
			return 0
		}
		return info[typ][0]
	}
	switch {
	case is(tunType) != unix.IFF_TAP:
		return cnierr.Check("interface %s is a tun, not a tap", l.Name)
	case is(tunMultiQueue) != 0 != c.MultiQueue:
		return cnierr.Check("interface %s: multiQueue is not %v", l.Name, c.MultiQueue)
	case !ownedBy(tunOwner, c.Owner):
		return cnierr.Check("interface %s has another owner than %d", l.Name, *c.Owner)
	case !ownedBy(tunGroup, c.Group):
		return cnierr.Check("interface %s has another group than %d", l.Name, *c.Group)
	case c.MTU != 0 && l.MTU != c.MTU:
		return cnierr.Check("interface %s has MTU %d, not %d", l.Name, l.MTU, c.MTU)
	case !l.Up():
		return cnierr.Check("interface %s is down", l.Name)
	}
	return nil
}

func (c *config) compareBridge(p *nl.Pair, l *nl.Link) error {
	if c.Bridge == "" {
		return nil
	}
	b, err := p.Sandbox.LinkByName(c.Bridge)
	if nl.NotFound(err) {
		return cnierr.Check("bridge %s is missing", c.Bridge)
	}
	if err != nil {
		return err
	}
	if l.Master != b.Index {
		return cnierr.Check("interface %s is no port of bridge %s", l.Name, c.Bridge)
	}
	return nil
}
