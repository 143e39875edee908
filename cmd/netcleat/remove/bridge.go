package remove

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// bridge is what a network leaves of its own on the host: the bridge, which did
// not exist when the network was made, its uplink to other hosts, and where it has a
// VLAN the pair of links that holds the gateway. The zero value is nothing.
type bridge struct {
	links   []*nl.Link
	name    string
	guarded []vxlan.Conf // the network's uplinks
	others  []vxlan.Conf // those of other networks
}

// bridge looks for the network's bridge, and refuses one with ports that nobody
// remembers. One that has other addresses than the network's, or that another
// network is on, has become somebody else's and stays.
func (o Options) bridge(n show.Network, all []show.Network) (b bridge, err error) {
	if n.Driver != "bridge" || n.Link == "" {
		return b, nil
	}
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	links, err := c.Links()
	if err != nil {
		return b, err
	}
	i := slices.IndexFunc(links, func(l *nl.Link) bool { return l.Name == n.Link && l.Kind == "bridge" })
	if i < 0 {
		return b, nil // no container has ever been on it
	}
	if i := slices.IndexFunc(all, func(other show.Network) bool { return other.Name != n.Name && other.Link == n.Link }); i >= 0 {
		o.Warn("bridge %s stays: network %s is on it, too", n.Link, all[i].Name)
		return b, nil
	}
	b.links = append(gateways(links, links[i]), uplinks(n, links, links[i])...)
	b.links = append(b.links, links[i])
	b.name, b.guarded, b.others = n.Link, overlays(n), otherOverlays(n, all)
	for _, l := range links {
		if l.Master == links[i].Index && !b.has(l.Index) {
			return b, fmt.Errorf("network %s: %s is a port of its bridge %s, but of no known attachment, and may be a running container's (netcleat doctor says what is known of it)", n.Name, l.Name, n.Link)
		}
		if l.Parent == links[i].Index && l.ParentNetns < 0 && !b.has(l.Index) {
			o.Warn("bridge %s stays: %s is made on it", n.Link, l.Name)
			return bridge{}, nil
		}
	}
	addrs, err := c.Addrs(0)
	if err != nil {
		return b, err
	}
	if i := slices.IndexFunc(addrs, func(a nl.Addr) bool { return b.has(a.Index) && !isOf(n, a.Prefix.Addr()) }); i >= 0 {
		o.Warn("bridge %s stays: it has the address %s, which is not of network %s", n.Link, addrs[i].Prefix, n.Name)
		return bridge{}, nil
	}
	return b, nil
}

// gateways are the links that hold gateways in VLANs of the bridge: BRIDGE.VLAN on
// it, or both ends of a pair: BRIDGE.VLAN, and a port of the bridge.
func gateways(links []*nl.Link, br *nl.Link) (pairs []*nl.Link) {
	for _, l := range links {
		if l.Kind == "vlan" && strings.HasPrefix(l.Name, br.Name+".") && l.Parent == br.Index && l.ParentNetns < 0 {
			pairs = append(pairs, l)
		}
		for _, port := range links {
			if l.Kind == "veth" && strings.HasPrefix(l.Name, br.Name+".") && port.Index == l.Parent && port.Parent == l.Index && port.Master == br.Index {
				pairs = append(pairs, l, port)
			}
		}
	}
	return pairs
}

// overlays are the uplinks that a network's configuration names.
func overlays(n show.Network) (all []vxlan.Conf) {
	for _, raw := range n.Options {
		if c := vxlan.Of(raw); c != nil {
			all = append(all, *c)
		}
	}
	return all
}

// otherOverlays are the uplinks of the other networks.
func otherOverlays(n show.Network, all []show.Network) (others []vxlan.Conf) {
	for _, other := range all {
		if other.Name != n.Name {
			others = append(others, overlays(other)...)
		}
	}
	return others
}

// uplinks are the VXLAN interfaces that ADD makes as ports of the bridge.
func uplinks(n show.Network, links []*nl.Link, br *nl.Link) (all []*nl.Link) {
	for _, c := range overlays(n) {
		for _, l := range links {
			if u, ok := vxlan.Read(l); ok && l.Master == br.Index && u.ID == c.ID && l.Name == c.Name() {
				all = append(all, l)
			}
		}
	}
	return all
}

// unguard removes the firewall rules that go with the uplinks, as far as no other
// network needs them.
func (b bridge) unguard(ctx context.Context) error {
	var errs []error
	for _, c := range b.guarded {
		errs = append(errs, c.Unguard(ctx, nil, b.name, b.others))
	}
	return errors.Join(errs...)
}

func (b bridge) has(index int) bool {
	return slices.ContainsFunc(b.links, func(l *nl.Link) bool { return l.Index == index })
}

// isOf reports whether the address is in one of the network's subnets, or one that
// every link has.
func isOf(n show.Network, a netip.Addr) bool {
	if a.IsLinkLocalUnicast() {
		return true
	}
	for _, pool := range n.IPAM.Pools {
		for _, s := range pool.Subnets {
			if p, err := netip.ParsePrefix(s); err == nil && p.Contains(a) {
				return true
			}
		}
	}
	return false
}

func (b bridge) remove(ctx context.Context) (err error) {
	if len(b.links) == 0 {
		return nil
	}
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for _, l := range b.links {
		err = errors.Join(err, c.Do(nl.DelLinkIndex(l.Name, l.Index)))
	}
	return errors.Join(err, b.unguard(ctx))
}
