package bridge

import (
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/forward"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/veth"
)

// setUpHost sets up the port, the gateways and forwarding.
func setUpHost(p *nl.Pair, conf *config, bridge int, port portConf, sandbox veth.End, res *current.Result) error {
	batch := port.messages()
	if conf.IsGateway {
		gws, err := gateways(res.IPs)
		if err != nil {
			return err
		}
		index, err := ensureGatewayLink(p, conf, bridge)
		if err != nil {
			return err
		}
		if err := ensureGateways(p, conf, index, gws); err != nil {
			return err
		}
		batch = append(batch, freshNeighbours(index, sandbox, res.IPs)...)
	}
	if conf.IsDefaultGateway {
		addDefaultRoutes(res)
	}
	return p.Host.Do(batch...)
}

// ensureGateways gives the host its addresses on the network and turns on
// forwarding for their families.
func ensureGateways(p *nl.Pair, conf *config, index int, gws []netip.Prefix) error {
	var v4, v6 bool
	for _, gw := range gws {
		v4, v6 = v4 || gw.Addr().Is4(), v6 || gw.Addr().Is6()
		if err := ensureAddress(p, conf, index, gw); err != nil {
			return err
		}
	}
	if v4 {
		if err := forward.Enable4(p.Gate); err != nil {
			return err
		}
	}
	if v6 {
		return forward.Enable6(p.Host, p.Gate)
	}
	return nil
}

// freshNeighbours corrects what the host remembers of an address that another
// container had before: without it packets go to that one's MAC address until
// the kernel asks again. An address that the host has not met is left alone.
func freshNeighbours(index int, sandbox veth.End, ips []*current.IPConfig) []*nl.Message {
	all := make([]*nl.Message, 0, len(ips))
	for _, ip := range ips {
		m := nl.SetNeigh(nl.Neigh{Index: index, IP: link.AddrOf(ip.Address.IP), MAC: sandbox.MAC, State: unix.NUD_STALE})
		m.Flags = unix.NLM_F_REPLACE
		m.Forgive = []unix.Errno{unix.ENOENT}
		all = append(all, m)
	}
	return all
}

// addDefaultRoutes adds the default route of each family that has a gateway and
// no default route yet.
func addDefaultRoutes(res *current.Result) {
	var v4, v6 bool
	for _, r := range res.Routes {
		if p, err := link.PrefixOf(r.Dst); err == nil && p.Bits() == 0 {
			v4, v6 = v4 || p.Addr().Is4(), v6 || p.Addr().Is6()
		}
	}
	for _, ip := range res.IPs {
		gw := link.AddrOf(ip.Gateway)
		if gw.Is4() && !v4 {
			v4 = true
			res.Routes = append(res.Routes, &types.Route{Dst: link.IPNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)), GW: ip.Gateway})
		}
		if gw.Is6() && !v6 {
			v6 = true
			res.Routes = append(res.Routes, &types.Route{Dst: link.IPNet(netip.PrefixFrom(netip.IPv6Unspecified(), 0)), GW: ip.Gateway})
		}
	}
}

// setup is what the sandbox's interface is to become.
func (c *config) setup(sandbox veth.End, res *current.Result) link.Setup {
	s := link.Setup{Name: sandbox.Name, Index: sandbox.Index, IPs: res.IPs, Routes: res.Routes, AcceptRA: c.AcceptRA}
	if c.EnableDAD {
		s.DAD = link.WaitDAD
	}
	return s
}

// remember puts into the attachment's record what it is made of.
func remember(e *journal.Entry, host, sandbox veth.End, res *current.Result) {
	e.Links = []journal.Link{
		{Name: host.Name, Index: host.Index, MAC: host.MAC.String()},
		{Name: sandbox.Name, Index: sandbox.Index, MAC: sandbox.MAC.String(), Sandbox: true},
	}
	for _, ip := range res.IPs {
		if p, err := link.PrefixOf(ip.Address); err == nil {
			e.IPs = append(e.IPs, p)
		}
	}
}

// The places of the interfaces in the result, which callers rely on.
const (
	atBridge = iota
	atHost
	atSandbox
)

// complete adds the interfaces to the IPAM plugin's result.
func complete(c *plugin.Call, conf *config, host, sandbox veth.End, res *current.Result) (*current.Result, error) {
	mac, err := nl.MACByName(conf.Bridge)
	if err != nil {
		return nil, err
	}
	res.Interfaces = []*current.Interface{
		atBridge:  {Name: conf.Bridge, Mac: mac.String()},
		atHost:    {Name: host.Name, Mac: host.MAC.String(), Mtu: host.MTU},
		atSandbox: {Name: sandbox.Name, Mac: sandbox.MAC.String(), Mtu: sandbox.MTU, Sandbox: c.Netns},
	}
	if conf.VLAN != 0 && conf.IsGateway {
		gw := conf.gatewayLink()
		mac, err := nl.MACByName(gw)
		if err != nil {
			return nil, err
		}
		res.Interfaces = append(res.Interfaces, &current.Interface{Name: gw, Mac: mac.String()})
	}
	for _, ip := range res.IPs {
		ip.Interface = current.Int(atSandbox)
	}
	if !emptyDNS(c.Conf.DNS) {
		res.DNS = c.Conf.DNS
	}
	return res, nil
}

func emptyDNS(d types.DNS) bool {
	return len(d.Nameservers) == 0 && d.Domain == "" && len(d.Search) == 0 && len(d.Options) == 0
}
