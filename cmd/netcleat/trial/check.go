package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// conf is what the list says that decides what is tried.
type conf struct {
	masquerades bool
	named       bool // it has dnsname
	publishes   bool // a plugin takes ports
	isolated    bool // containers of the network do not reach each other
	conditional bool // published ports are for some packets only
}

func confOf(l *libcni.NetworkConfigList) (c conf) {
	for _, p := range l.Plugins {
		var own struct {
			IPMasq        bool     `json:"ipMasq"`
			PortIsolation bool     `json:"portIsolation"`
			Policy        string   `json:"ingressPolicy"`
			ConditionsV4  []string `json:"conditionsV4"`
			ConditionsV6  []string `json:"conditionsV6"`
		}
		_ = json.Unmarshal(p.Bytes, &own) // what is of another type says nothing
		c.publishes = c.publishes || p.Network.Capabilities["portMappings"]
		c.masquerades = c.masquerades || own.IPMasq
		c.named = c.named || p.Network.Type == dnsname.Name
		c.isolated = c.isolated || own.PortIsolation || own.Policy == "isolated"
		c.conditional = c.conditional || len(own.ConditionsV4)+len(own.ConditionsV6) > 0
	}
	return c
}

// check tries everything, from near to far.
func (t *trial) check(ctx context.Context) {
	for _, try := range []func(context.Context){t.others, t.gateways, t.names, t.outside, t.ports} {
		if ctx.Err() == nil {
			try(ctx)
		}
	}
}

// others has the first sandbox ask the second.
func (t *trial) others(ctx context.Context) {
	a, b := t.boxes[0], t.boxes[1]
	switch {
	case len(a.ips) == 0:
		t.skip("ping between the sandboxes", "the network gives no addresses")
	case t.conf.isolated:
		t.skip("ping between the sandboxes", "the network isolates its containers from each other")
	default:
		for _, ip := range b.ips {
			t.judge(ping(ctx, a.ns, ip.Addr()), "ping from one sandbox to the other, %s", ip.Addr())
		}
	}
}

// gateways has the first sandbox ask its gateways.
func (t *trial) gateways(ctx context.Context) {
	for _, ip := range t.boxes[0].ips {
		if ip.gateway.IsValid() {
			t.judge(ping(ctx, t.boxes[0].ns, ip.gateway), "ping the gateway, %s", ip.gateway)
		}
	}
}

// names has the second sandbox ask for the first by name.
func (t *trial) names(ctx context.Context) {
	a, b := t.boxes[0], t.boxes[1]
	if !t.conf.named {
		t.skip("names", "the network has none: dnsname is not in its list")
		return
	}
	asked := false
	for _, ip := range b.ips { // other servers of the network do not know the names
		if slices.Contains(b.dns.servers, ip.gateway.String()) {
			t.judge(b.resolve(ctx, ip.gateway, a), "name of the other sandbox, asked of %s", ip.gateway)
			asked = true
		}
	}
	if !asked {
		t.judge(errors.New("none of the network's gateways is a server of names"), "names")
	}
}

// outside has the first sandbox ask beyond the host.
func (t *trial) outside(ctx context.Context) {
	if !t.conf.masquerades && len(t.Targets) == 0 {
		t.skip("outside", "the network does not masquerade; --target names an address to try")
		return
	}
	targets, err := t.targets()
	if err != nil {
		t.judge(err, "outside")
		return
	}
	if len(targets) == 0 {
		t.skip("outside", "the host has no default route with a next hop; --target names an address to try")
	}
	for _, to := range targets {
		if !t.boxes[0].speaks(to) {
			t.skip(fmt.Sprintf("ping %s, outside", to), "the network has no address of that family")
			continue
		}
		t.judge(ping(ctx, t.boxes[0].ns, to), "ping %s, outside", to)
	}
}

// speaks reports whether the box has an address of the family.
func (b *box) speaks(to netip.Addr) bool {
	return slices.ContainsFunc(b.ips, func(ip address) bool { return ip.Addr().Is4() == to.Is4() })
}

// targets are those that were named, or the next hops of the host's default routes.
func (t *trial) targets() (list []netip.Addr, err error) {
	if len(t.Targets) > 0 {
		return t.Targets, nil
	}
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	routes, err := c.Routes(unix.RT_TABLE_MAIN)
	seen := map[netip.Addr]bool{}
	for _, r := range routes {
		// A link-local address is a neighbour's, which packets that are forwarded do not reach.
		if r.Dst.Bits() == 0 && r.Gateway.IsValid() && !r.Gateway.IsLinkLocalUnicast() && !seen[r.Gateway] {
			seen[r.Gateway] = true
			list = append(list, r.Gateway)
		}
	}
	return list, err
}

// ports publishes a port of the first sandbox, and asks for it from the host and from the
// second.
func (t *trial) ports(ctx context.Context) {
	a, b := t.boxes[0], t.boxes[1]
	switch {
	case t.port == 0:
		t.skip("published port", "no plugin of the network has the capability portMappings")
		return
	case t.conf.conditional:
		t.skip("published port", "the list has conditions for it")
		return
	}
	for _, ip := range a.ips {
		at := netip.AddrPortFrom(hostAddr(ip), uint16(t.port))
		stop, err := serve(a.ns, netip.AddrPortFrom(ip.Addr(), served), a.name)
		if err != nil {
			t.judge(err, "published port %s", at)
			continue
		}
		t.judge(ask(ctx, nil, at, a.name), "published port %s, asked by the host", at)
		t.judge(ask(ctx, b.ns, at, a.name), "published port %s, asked by the other sandbox", at)
		stop()
	}
}
