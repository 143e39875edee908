package ptp

import (
	"errors"
	"fmt"
	"net/netip"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/forward"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/sysctl"
	"github.com/netcleat/netcleat/pkg/veth"
)

// hop is one address of the sandbox and the host's, through which it reaches
// everything.
type hop struct {
	addr    netip.Prefix
	gateway netip.Addr
}

// whole is the prefix that holds a alone.
func whole(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// hopsOf pairs the addresses with their gateways.
func hopsOf(ips []*current.IPConfig) ([]hop, error) {
	hops := make([]hop, 0, len(ips))
	for _, ip := range ips {
		addr, err := link.PrefixOf(ip.Address)
		if err != nil {
			return nil, err
		}
		h := hop{addr, link.GatewayOf(ip.Gateway)}
		switch {
		case !h.gateway.IsValid():
			return nil, cnierr.Config("address %s: has no gateway, and ptp routes everything through one: name any address that is not a container's (ipam: gateway)", addr)
		case h.gateway == addr.Addr():
			return nil, cnierr.Config("address %s: is its own gateway: choose another (ipam: gateway)", addr)
		}
		hops = append(hops, h)
	}
	return hops, nil
}

// sandboxRoutes are the sandbox's routes to the gateways, and through them to
// the addresses' subnets. An address of full length has no subnet.
func sandboxRoutes(index int, hops []hop) []nl.Route {
	var all []nl.Route
	seen := map[netip.Prefix]bool{}
	add := func(r nl.Route) {
		if !seen[r.Dst] {
			seen[r.Dst] = true
			all = append(all, r)
		}
	}
	for _, h := range hops {
		add(nl.Route{Dst: whole(h.gateway), Index: index, Scope: unix.RT_SCOPE_LINK, Source: h.addr.Addr()})
	}
	for _, h := range hops {
		if subnet := h.addr.Masked(); !h.addr.IsSingleIP() {
			add(nl.Route{Dst: subnet, Index: index, Gateway: h.gateway, Source: h.addr.Addr()})
		}
	}
	return all
}

// end is the host's end of the pair, and whose it is in words.
type end struct {
	veth.End
	alias string
}

// setUpHost turns on forwarding, and brings the host's end up with the gateways
// and a route to each address.
func setUpHost(p *nl.Pair, conf *config, host end, hops []hop) error {
	v4, v6 := families(hops)
	if v4 {
		if err := forward.Enable4(p.Gate); err != nil {
			return err
		}
	}
	if v6 {
		if err := forward.Enable6(p.Host, p.Gate); err != nil {
			return err
		}
	}
	if err := sysctl.Set(nil, p.Gate, hostSysctls(conf, host.Name, v6)...); err != nil {
		return err
	}
	if err := p.Host.Do(host.messages(hops)...); err != nil {
		return explain(p.Host, hops, err)
	}
	return nil
}

func families(hops []hop) (v4, v6 bool) {
	for _, h := range hops {
		v4, v6 = v4 || h.addr.Addr().Is4(), v6 || h.addr.Addr().Is6()
	}
	return v4, v6
}

// hostSysctls are the settings of the host's end, which must hold before it is
// up: the container's router advertisements are not for the host
// (CVE-2020-10749), nor is its IPv6 where it was given no address of that.
func hostSysctls(conf *config, name string, v6 bool) []sysctl.Setting {
	set := func(key, value string) sysctl.Setting {
		// Hosts started with ipv6.disable=1 have no such key, and need none.
		return sysctl.Setting{Key: "net/ipv6/conf/" + name + "/" + key, Value: value, IfExists: true}
	}
	switch {
	case v6:
		return []sysctl.Setting{set("disable_ipv6", "0"), set("accept_ra", "0")}
	case conf.AcceptRA:
		return []sysctl.Setting{set("accept_ra", "0")}
	default:
		return []sysctl.Setting{set("disable_ipv6", "1")}
	}
}

// messages brings the end up and gives it gateways and routes. A route that
// exists is another container's, which would get this one's packets.
func (e end) messages(hops []hop) []*nl.Message {
	up := nl.SetUp(e.Name, e.Index).Attr(unix.IFLA_IFALIAS, []byte(e.alias))
	all := []*nl.Message{up}
	seen := map[netip.Addr]bool{}
	for _, h := range hops {
		if seen[h.gateway] {
			continue
		}
		seen[h.gateway] = true
		a := nl.Addr{Index: e.Index, Prefix: whole(h.gateway)}
		if h.gateway.Is6() {
			a.Flags = unix.IFA_F_NODAD // nobody else is on the link
			all = append(all, link.EnsureLinkLocal(e.Index, e.MAC, nil)...)
		}
		all = append(all, nl.AddAddr(a))
	}
	for _, h := range hops {
		all = append(all, nl.AddRoute(e.route(h)))
	}
	return all
}

// route is the host's way to an address of the sandbox.
func (e end) route(h hop) nl.Route {
	return nl.Route{Dst: whole(h.addr.Addr()), Index: e.Index, Scope: unix.RT_SCOPE_HOST}
}

// explain names who has an address, where the host has a route to it already.
func explain(host *nl.Conn, hops []hop, err error) error {
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	for _, h := range hops {
		r, rerr := host.RouteTo(h.addr.Addr())
		if rerr != nil || r.Dst != whole(h.addr.Addr()) {
			continue
		}
		if l, lerr := host.LinkByIndex(r.Index); lerr == nil && l.Alias != "" {
			return fmt.Errorf("address %s: is in use: the host routes it to %s (%s): %w", h.addr.Addr(), l.Name, l.Alias, err)
		}
	}
	return fmt.Errorf("address: is in use: the host has a route to it: %w", err)
}
