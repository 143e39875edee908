package hostdevice

import (
	"context"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// check answers CHECK: the device is in the sandbox and as ADD reported it.
func check(ctx context.Context, c *plugin.Call, _ config) error {
	return ipam.Check(ctx, c, "Required prevResult missing", func(p *nl.Pair, res *current.Result) error { return compare(p, c, res) })
}

func compare(p *nl.Pair, c *plugin.Call, res *current.Result) error {
	want, at := link.Find(res, c.IfName, c.Netns)
	if want == nil {
		return cnierr.Check("prevResult has no interface %s in %s", c.IfName, c.Netns)
	}
	d, known, err := recorded(c.Entry)
	if err != nil {
		return err
	}
	if known && d.Name == "" || !known && want.Mac == "" {
		return nil // a driver of userspace has the device
	}
	l, err := link.Expect(p.Sandbox, want, "")
	switch {
	case err != nil:
		return err
	case known && !d.is(l):
		return cnierr.Check("interface %s is not the device %s", l.Name, d.Name)
	case !l.Up():
		return cnierr.Check("interface %s is down", l.Name)
	}
	ips := link.Owned(res.IPs, at)
	if err := link.CheckAddrs(p.Sandbox, l, ips); err != nil {
		return err
	}
	return link.CheckRoutes(p.Sandbox, l, ips, res.Routes)
}
