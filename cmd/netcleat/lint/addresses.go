package lint

import (
	"fmt"
	"net/netip"
)

// pool is a range of addresses that host-local hands out.
type pool struct {
	*document
	at          int
	subnet      netip.Prefix
	first, last netip.Addr
	gateway     netip.Addr
	gatewayAt   int
}

// shares reports whether both pools have an address.
func (p pool) shares(o pool) bool {
	return p.first.Is4() == o.first.Is4() && !p.last.Less(o.first) && !o.last.Less(p.first)
}

// overlaps reports whether their subnets have an address in common.
func (p pool) overlaps(o pool) bool { return p.subnet.Overlaps(o.subnet) }

// addresses checks a list's subnets, ranges and gateways.
func (l *linter) addresses(n *list) {
	for _, e := range n.plugins {
		switch e.ipamType {
		case "host-local":
			n.pools = append(n.pools, poolsOf(e)...)
		case "static":
			l.static(e)
		}
	}
	for i, p := range n.pools {
		l.pool(p)
		for _, o := range n.pools[:i] {
			switch {
			case p.subnet == o.subnet && p.gateway != o.gateway:
				l.say(Warning, p.document, p.at, "subnet %s: gateway %s, and in line %d %s", p.subnet, p.gateway, lineOf(o.document, o.at), o.gateway)
			case p.subnet != o.subnet && p.overlaps(o):
				l.say(Warning, p.document, p.at, "subnet %s: overlaps with %s in line %d", p.subnet, o.subnet, lineOf(o.document, o.at))
			}
		}
	}
	for _, e := range n.plugins {
		l.routes(e, n.pools)
	}
}

// poolsOf returns the pools of a host-local section, as far as they are right:
// of the others the plugin's parser has spoken.
func poolsOf(e *entry) (pools []pool) {
	add := func(v *value) {
		if p, ok := poolOf(e.document, v); ok {
			pools = append(pools, p)
		}
	}
	if e.ipam.given("subnet") {
		add(e.ipam)
	}
	if sets := e.ipam.get("ranges"); sets != nil {
		for _, set := range sets.items {
			for _, r := range set.items {
				add(r)
			}
		}
	}
	return pools
}

func poolOf(d *document, v *value) (p pool, ok bool) {
	p = pool{document: d, at: v.at}
	subnet := v.get("subnet")
	if subnet == nil {
		return p, false
	}
	p.at = subnet.at
	var err error
	if p.subnet, err = netip.ParsePrefix(text(subnet.raw)); err != nil || p.subnet != p.subnet.Masked() || p.subnet.Bits() > p.subnet.Addr().BitLen()-2 {
		return p, false
	}
	p.first = address(v, "rangeStart", p.subnet.Addr().Next())
	p.gateway, p.gatewayAt = address(v, "gateway", p.subnet.Addr().Next()), p.at
	if gw := v.get("gateway"); gw != nil {
		p.gatewayAt = gw.at
	}
	p.last = address(v, "rangeEnd", lastOf(p.subnet))
	return p, p.subnet.Contains(p.first) && p.subnet.Contains(p.last) && !p.last.Less(p.first)
}

func address(v *value, key string, otherwise netip.Addr) netip.Addr {
	a, err := netip.ParseAddr(v.string(key))
	if err != nil {
		return otherwise
	}
	return a.Unmap()
}

// lastOf is the last address of a subnet that an interface can have.
func lastOf(n netip.Prefix) netip.Addr {
	last := broadcast(n)
	if last.Is4() {
		return last.Prev()
	}
	return last
}

// broadcast is the last address of a subnet.
func broadcast(n netip.Prefix) netip.Addr {
	b := n.Addr().AsSlice()
	for i := range b {
		b[i] |= byte(0xff >> min(8, max(0, n.Bits()-8*i)))
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// pool checks one range with its gateway.
func (l *linter) pool(p pool) {
	v4 := p.subnet.Addr().Is4()
	switch {
	case p.gateway.Is4() != v4:
		l.say(Error, p.document, p.gatewayAt, "gateway %s: of another family than subnet %s", p.gateway, p.subnet)
	case !p.subnet.Contains(p.gateway):
		l.say(Warning, p.document, p.gatewayAt, "gateway %s: outside of subnet %s", p.gateway, p.subnet)
	case v4 && (p.gateway == p.subnet.Addr() || p.gateway == broadcast(p.subnet)):
		l.say(Error, p.document, p.gatewayAt, "gateway %s: no interface can have the first or the last address of subnet %s", p.gateway, p.subnet)
	case p.first == p.last && p.first == p.gateway:
		l.say(Error, p.document, p.at, "range %s-%s: its only address is the gateway's, which is not handed out", p.first, p.last)
	}
	if v4 && (p.first == p.subnet.Addr() || p.last == broadcast(p.subnet)) {
		l.say(Warning, p.document, p.at, "range %s-%s: no interface can have the first or the last address of subnet %s", p.first, p.last, p.subnet)
	}
}

// static checks the addresses that static hands out.
func (l *linter) static(e *entry) {
	all := e.ipam.get("addresses")
	if all == nil {
		return
	}
	for _, v := range all.items {
		p, err := netip.ParsePrefix(v.string("address"))
		gw, gerr := netip.ParseAddr(v.string("gateway"))
		switch {
		case err != nil || gerr != nil:
		case gw == p.Addr():
			l.say(Error, e.document, v.get("gateway").at, "gateway %s: is the container's own address", gw)
		case gw.Is4() == p.Addr().Is4() && !p.Contains(gw):
			l.say(Warning, e.document, v.get("gateway").at, "gateway %s: outside of subnet %s", gw, p.Masked())
		}
	}
}

// routes checks the gateways of an ipam section's routes, where it is known
// which subnets the container is in.
func (l *linter) routes(e *entry, pools []pool) {
	caps, routes := e.conf.get("capabilities"), e.ipam.get("routes")
	if e.ipamType != "host-local" || routes == nil || len(pools) == 0 || caps.isTrue("ipRanges") {
		return
	}
	for _, r := range routes.items {
		gw, err := netip.ParseAddr(r.string("gw"))
		if err != nil || gw.IsLinkLocalUnicast() {
			continue
		}
		inside := false
		for _, p := range pools {
			inside = inside || p.subnet.Contains(gw)
		}
		if !inside {
			l.say(Warning, e.document, r.get("gw").at, "route %s: gateway %s is in no subnet of the network", r.string("dst"), gw)
		}
	}
}

func (p pool) String() string { return fmt.Sprintf("%s-%s", p.first, p.last) }
