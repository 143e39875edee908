// Package static is the static IPAM plugin: it hands out the addresses that the
// configuration or the runtime names, and remembers nothing.
package static

import (
	"context"
	"net/netip"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Plugin is the static IPAM plugin. There is nothing that DEL or GC could give
// back.
var Plugin = plugin.Spec[config]{Name: "static", Role: plugin.IPAM, Parse: parse, Add: add, Check: check}

func add(_ context.Context, c *plugin.Call, conf config) (*current.Result, error) {
	if len(conf.Addresses) == 0 {
		return nil, cnierr.Config("ipam static: no address: neither ipam.addresses nor the runtime (capability ips, args.cni.ips, CNI_ARGS IP) names one")
	}
	res := &current.Result{Routes: conf.Routes, DNS: conf.DNS}
	for _, a := range conf.Addresses {
		if a.Gateway.IsValid() && !a.Gateway.IsUnspecified() && !a.Prefix.Contains(a.Gateway) {
			c.Note("static: gateway %s is not in the subnet of %s", a.Gateway, a.Prefix)
		}
		res.IPs = append(res.IPs, a.result())
	}
	return res, nil
}

func (a address) result() *current.IPConfig {
	ip := &current.IPConfig{Address: link.IPNet(a.Prefix)}
	if a.Gateway.IsValid() {
		ip.Gateway = a.Gateway.AsSlice()
	}
	return ip
}

// check requires every address in prevResult, with its gateway where one is
// configured. Whether the kernel has them is the calling plugin's to look at.
func check(_ context.Context, c *plugin.Call, conf config) error {
	res, err := c.PrevResult()
	if err != nil {
		return err
	}
	if res == nil {
		return cnierr.Config("Required prevResult missing")
	}
	gateways := map[netip.Prefix]netip.Addr{}
	for _, ip := range res.IPs {
		p, err := link.PrefixOf(ip.Address)
		if err != nil {
			return cnierr.Config("prevResult: %w", err)
		}
		gateways[p] = link.AddrOf(ip.Gateway)
	}
	for _, a := range conf.Addresses {
		gw, ok := gateways[a.Prefix]
		if !ok {
			return cnierr.Check("static: Failed to match addr %s on interface %s: prevResult does not have it", a.Prefix, c.IfName)
		}
		if a.Gateway.IsValid() && gw != a.Gateway {
			return cnierr.Check("static: Failed to match addr %s on interface %s: gateway %s, prevResult has %s", a.Prefix, c.IfName, a.Gateway, gw)
		}
	}
	return nil
}
