package ptp

import (
	"context"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// check answers CHECK: what ADD reported is still so, on both ends.
func check(ctx context.Context, c *plugin.Call, conf config) error {
	return ipam.Check(ctx, c, "ptp: Required prevResult missing", func(p *nl.Pair, res *current.Result) error {
		l, err := link.CheckSandbox(p, c, res, "veth")
		if err != nil {
			return err
		}
		_, at := link.Find(res, c.IfName, c.Netns)
		return checkHost(ctx, p, hostCheck{c, &conf, l, link.Owned(res.IPs, at)})
	})
}

// hostCheck is what the host's part of an attachment is compared with.
type hostCheck struct {
	call    *plugin.Call
	conf    *config
	sandbox *nl.Link
	ips     []*current.IPConfig
}

// checkHost compares the host's end, its routes to the addresses, and the
// masquerading.
func checkHost(ctx context.Context, p *nl.Pair, h hostCheck) error {
	host, err := p.Host.LinkByIndex(h.sandbox.Parent)
	switch {
	case nl.NotFound(err):
		return cnierr.Check("interface %s: its host end is missing", h.sandbox.Name)
	case err != nil:
		return err
	case host.Kind != "veth" || !host.Up():
		return cnierr.Check("interface %s: its host end %s is down", h.sandbox.Name, host.Name)
	}
	a := masq.Of(h.call, h.conf.IPMasqBackend)
	a.Addrs = nil
	for _, ip := range h.ips {
		addr, err := link.PrefixOf(ip.Address)
		if err != nil {
			return err
		}
		r, err := p.Host.RouteTo(addr.Addr())
		if nl.NoRoute(err) || err == nil && (r.Dst != whole(addr.Addr()) || r.Index != host.Index) {
			return cnierr.Check("address %s: the host has no route to it over %s", addr.Addr(), host.Name)
		}
		if err != nil {
			return err
		}
		a.Addrs = append(a.Addrs, addr)
	}
	if !h.conf.IPMasq {
		return nil
	}
	return masq.Check(ctx, a)
}
