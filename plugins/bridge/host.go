package bridge

import (
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/forward"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/veth"
)

// setUpHost sets up the port, the gateways and forwarding.
func (a *attachment) setUpHost() error {
	batch := a.conf.port(a.net, a.host, veth.Alias(a.Key(""))).messages()
	if a.conf.IsGateway {
		gws, err := gateways(a.res.IPs)
		if err != nil {
			return err
		}
		index, err := ensureGatewayLink(a.net, a.conf, a.bridge)
		if err != nil {
			return err
		}
		if err := ensureGateways(a.net, a.conf, index, gws); err != nil {
			return err
		}
		batch = append(batch, freshNeighbours(index, a.sandbox, a.res.IPs)...)
	}
	if a.conf.IsDefaultGateway {
		addDefaultRoutes(a.res)
	}
	return a.net.Host.Do(batch...)
}

// ensureGateways gives the host its addresses on the network and turns on
// forwarding for their families.
func ensureGateways(p *nl.Pair, conf *config, index int, gws []netip.Prefix) error {
	var v4, v6 bool
	for _, gw := range gws {
		v4, v6 = v4 || gw.Addr().Is4(), v6 || gw.Addr().Is6()
		if err := ensureAddress(p, conf, nl.Addr{Index: index, Prefix: gw}, gws); err != nil {
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
func (a *attachment) setup() link.Setup {
	s := link.Setup{
		Name: a.sandbox.Name, Index: a.sandbox.Index,
		IPs: a.res.IPs, Routes: a.res.Routes, SetMAC: a.sandbox.MAC, AcceptRA: a.conf.AcceptRA,
		Peer: a.host.Index, MAC: a.conf.mac,
	}
	if !a.conf.IsGateway { // the bridge may lead to switches, which remember ports
		s.MAC = a.sandbox.MAC
	}
	if a.conf.EnableDAD {
		s.DAD = link.WaitDAD
	}
	return s
}

// remember puts into the attachment's record what it is made of, before the
// rules that are found by it.
func (a *attachment) remember() error {
	a.Entry.Links = []journal.Link{
		{Name: a.host.Name, Index: a.host.Index, MAC: a.host.MAC.String()},
		{Name: a.sandbox.Name, Index: a.sandbox.Index, MAC: a.sandbox.MAC.String(), Sandbox: true},
	}
	for _, ip := range a.res.IPs {
		if p, err := link.PrefixOf(ip.Address); err == nil {
			a.Entry.IPs = append(a.Entry.IPs, p)
		}
	}
	return cnierr.With(cnierr.IOFailure, a.Entry.Begin())
}

// The places of the interfaces in the result, which callers rely on.
const (
	atBridge = iota
	atHost
	atSandbox
)

// result adds the interfaces to the IPAM plugin's result.
func (a *attachment) result() (*current.Result, error) {
	mac, err := nl.MACByName(a.conf.Bridge)
	if err != nil {
		return nil, err
	}
	a.res.Interfaces = []*current.Interface{
		atBridge:  {Name: a.conf.Bridge, Mac: mac.String()},
		atHost:    {Name: a.host.Name, Mac: a.host.MAC.String(), Mtu: a.host.MTU},
		atSandbox: {Name: a.sandbox.Name, Mac: a.sandbox.MAC.String(), Mtu: a.sandbox.MTU, Sandbox: a.Netns},
	}
	if a.conf.VLAN != 0 && a.conf.IsGateway {
		gw := a.conf.gatewayLink()
		mac, err := nl.MACByName(gw)
		if err != nil {
			return nil, err
		}
		a.res.Interfaces = append(a.res.Interfaces, &current.Interface{Name: gw, Mac: mac.String()})
	}
	for _, ip := range a.res.IPs {
		ip.Interface = current.Int(atSandbox)
	}
	if !a.Conf.DNS.IsEmpty() {
		a.res.DNS = a.Conf.DNS
	}
	return a.res, nil
}
