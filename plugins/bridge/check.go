package bridge

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

// check answers CHECK: what ADD reported is still so, on both ends.
func check(ctx context.Context, c *plugin.Call, conf config) error {
	return ipam.Check(ctx, c, "Required prevResult missing", func(p *nl.Pair, res *current.Result) error {
		check := link.CheckSandbox
		if conf.DisableContainerInterface {
			check = link.CheckMade
		}
		l, err := check(p, c, res, "veth")
		if err != nil {
			return err
		}
		if err := checkHost(p, &conf, l, res); err != nil {
			return err
		}
		return checkRules(ctx, c, &conf, res)
	})
}

// checkHost compares the bridge and the host's end, the peer of l.
func checkHost(p *nl.Pair, conf *config, l *nl.Link, res *current.Result) error {
	b, err := nl.BriefByName(conf.Bridge)
	switch {
	case nl.NotFound(err):
		return cnierr.Check("bridge %s is missing", conf.Bridge)
	case err != nil:
		return err
	case b.Driver != "bridge":
		return cnierr.Check("%s is not a bridge", conf.Bridge)
	case b.Flags&unix.IFF_UP == 0:
		return cnierr.Check("bridge %s is down", conf.Bridge)
	case conf.PromiscMode && b.Flags&unix.IFF_PROMISC == 0:
		return cnierr.Check("bridge %s: promiscuous mode is off", conf.Bridge)
	}
	host, err := p.Host.LinkByIndex(l.Parent)
	switch {
	case nl.NotFound(err):
		return cnierr.Check("interface %s: its host end is missing", l.Name)
	case err != nil:
		return err
	case host.Kind != "veth" || host.Master != b.Index:
		return cnierr.Check("interface %s: its host end %s is no port of bridge %s", l.Name, host.Name, conf.Bridge)
	case !host.Up():
		return cnierr.Check("interface %s: its host end %s is down", l.Name, host.Name)
	case conf.HairpinMode && !flag(host.PortInfo, unix.IFLA_BRPORT_MODE):
		return cnierr.Check("port %s: hairpin mode is off", host.Name)
	case conf.PortIsolation && !flag(host.PortInfo, unix.IFLA_BRPORT_ISOLATED):
		return cnierr.Check("port %s: isolation is off", host.Name)
	}
	if err := checkUplink(p, conf, b); err != nil {
		return err
	}
	if conf.IsGateway {
		return checkGateways(p, conf, res)
	}
	return nil
}

func checkGateways(p *nl.Pair, conf *config, res *current.Result) error {
	gws, err := gateways(res.IPs)
	if err != nil {
		return err
	}
	b, err := nl.BriefByName(conf.gatewayLink())
	if nl.NotFound(err) {
		return cnierr.Check("interface %s of the gateway is missing", conf.gatewayLink())
	}
	if err != nil {
		return err
	}
	have, err := p.Host.Addrs(b.Index)
	if err != nil {
		return err
	}
next:
	for _, gw := range gws {
		for _, a := range have {
			if a.Prefix == gw {
				continue next
			}
		}
		return cnierr.Check("gateway %s is missing on %s", gw, conf.gatewayLink())
	}
	for _, ip := range res.IPs {
		if err := checkWayBack(p, b, ip); err != nil {
			return err
		}
	}
	return nil
}

func checkWayBack(p *nl.Pair, b nl.Brief, ip *current.IPConfig) error {
	r, needed := wayBack(b.Index, ip)
	if !needed {
		return nil
	}
	have, err := p.Host.RouteTo(link.AddrOf(ip.Address.IP))
	if nl.NoRoute(err) || err == nil && have.Index != b.Index {
		return cnierr.Check("address %s: the host has no route to it over the bridge", r.Dst)
	}
	return err
}
