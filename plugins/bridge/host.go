package bridge

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/forward"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/undo"
	"github.com/netcleat/netcleat/pkg/veth"
)

// setUpHost sets up the port, the gateways and forwarding.
func (a *attachment) setUpHost(steps *undo.Stack) error {
	if err := a.uplink.BringUp(a.net.Host); err != nil { // which cluster-local has had programmed
		return err
	}
	var batch []*nl.Message
	if !ipam.OverLink(a.Call) {
		batch = a.port()
	}
	if a.conf.IsGateway {
		index, err := ensureGatewayLink(a.net, a.conf, a.bridge.Index)
		if err != nil {
			return err
		}
		if err := a.ensureGateways(index); err != nil {
			return err
		}
		if err := a.addWayBack(index, steps); err != nil {
			return err
		}
		if !a.conf.announcesNeighbours() { // which come with addNeighbours
			batch = append(batch, freshNeighbours(index, a.sandbox, a.res.IPs)...)
		}
	}
	if a.conf.IsDefaultGateway {
		addDefaultRoutes(a.res)
	}
	return a.net.Host.Do(batch...)
}

// ensureGateways gives the host its addresses on the network and turns on
// forwarding for their families.
func (a *attachment) ensureGateways(index int) error {
	gws, err := gateways(a.res.IPs)
	if err != nil {
		return err
	}
	var v4, v6, added bool
	for _, gw := range gws {
		v4, v6 = v4 || gw.Addr().Is4(), v6 || gw.Addr().Is6()
		more, err := a.ensureAddress(nl.Addr{Index: index, Prefix: gw}, gws)
		if err != nil {
			return err
		}
		added = added || more
	}
	if err := a.keepMAC(added); err != nil {
		return err
	}
	if v4 {
		if err := forward.Enable4(a.Gate); err != nil {
			return err
		}
	}
	if v6 {
		return forward.Enable6(a.net.Host, a.Gate)
	}
	return nil
}

// keepMAC makes the bridge keep its hardware address, which is the containers'
// gateway's, however its ports come and go: one that nobody has set is that of a
// port. An address that was there before, and that no port of ours changes, is the
// host's affair.
func (a *attachment) keepMAC(added bool) error { //nolint:revive // whether the bridge became the gateway now
	if a.conf.VLAN != 0 {
		return nil // the gateway is an interface of its own
	}
	now, err := nl.MACByName(a.conf.Bridge)
	if err != nil {
		return err
	}
	if bytes.Equal(a.bridge.MAC, make([]byte, len(now))) { // it had a port once, and lost it
		a.bridge.MAC = now
	}
	if bytes.Equal(now, a.bridge.MAC) && (!added || a.conf.VXLAN != nil) {
		return nil
	}
	return a.setMAC()
}

func (a *attachment) setMAC() error {
	return a.net.Host.Do(nl.SetLink("keep MAC address of "+a.conf.Bridge, a.bridge.Index).Attr(unix.IFLA_ADDRESS, a.bridge.MAC))
}

// wayBack is the host's route to an address of which the gateway is not in the
// address's subnet, such as fe80::1: the gateway's own address brings none then.
func wayBack(index int, ip *current.IPConfig) (r nl.Route, needed bool) {
	p, err := link.PrefixOf(ip.Address)
	gw := link.GatewayOf(ip.Gateway)
	if err != nil || !gw.IsValid() || p.Contains(gw) {
		return r, false
	}
	r = nl.Route{Dst: p.Masked(), Index: index}
	if p.Addr().Is4() {
		r.Scope = unix.RT_SCOPE_LINK
	}
	return r, true
}

// addWayBack adds the host's routes that the gateways' addresses do not bring. One
// to a subnet is shared and stays with the bridge, as the gateways do; one to a
// single address goes with the attachment. A route that is there already is the
// host's.
func (a *attachment) addWayBack(index int, steps *undo.Stack) error {
	for _, ip := range a.res.IPs {
		r, needed := wayBack(index, ip)
		if !needed {
			continue
		}
		err := a.net.Host.Do(nl.AddRoute(r))
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return err
		}
		if r.Dst.IsSingleIP() {
			steps.Push("delete route "+r.String(), func() error { return a.net.Host.Do(nl.DelRoute(r)) })
		}
	}
	return nil
}

// delWayBack deletes the host's routes to the attachment's single addresses.
func delWayBack(p *nl.Pair, c *config, ips []netip.Prefix) error {
	if !c.IsGateway || !slices.ContainsFunc(ips, netip.Prefix.IsSingleIP) {
		return nil
	}
	b, err := nl.BriefByName(c.gatewayLink())
	if nl.NotFound(err) {
		return nil // and its routes with it
	}
	if err != nil {
		return err
	}
	var all []*nl.Message
	for _, ip := range ips {
		if ip.IsSingleIP() {
			all = append(all, nl.DelRoute(nl.Route{Dst: ip, Index: b.Index}))
		}
	}
	return p.Host.Do(all...)
}

// freshNeighbours corrects what the host remembers of an address that another
// container had before: without it packets go to that one's MAC address until
// the kernel asks again. An address that the host has not met is left alone.
func freshNeighbours(index int, sandbox veth.End, ips []*current.IPConfig) []*nl.Message {
	all := make([]*nl.Message, 0, len(ips))
	for _, ip := range ips {
		m := nl.SetNeigh(nl.Neigh{Index: index, IP: link.AddrOf(ip.Address.IP), MAC: sandbox.MAC, State: unix.NUD_STALE})
		m.Flags = unix.NLM_F_REPLACE
		m.Ignore = []unix.Errno{unix.ENOENT}
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
		Peer: a.host.Index, MAC: a.sandbox.MAC,
	}
	// A bridge that is no gateway may lead to switches, which remember ports.
	if a.conf.IsGateway && a.takesMACOfAddress() {
		s.MAC = nil
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
	link.ChooseDNS(a.res, a.Conf.DNS)
	return a.res, nil
}
