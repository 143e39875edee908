package lint

import (
	"net/netip"

	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/ranges"
)

// pool is a range of addresses that host-local or cluster-local hands out.
type pool struct {
	*document
	ranges.Range
	at, gatewayAt int // of its subnet and its gateway
}

// shares reports whether both pools have an address.
func (p pool) shares(o pool) bool {
	return p.First.Is4() == o.First.Is4() && !p.Last.Less(o.First) && !o.Last.Less(p.First)
}

// overlaps reports whether their subnets have an address in common.
func (p pool) overlaps(o pool) bool { return p.Subnet.Overlaps(o.Subnet) }

func (p pool) String() string { return p.First.String() + "-" + p.Last.String() }

// addresses checks a list's subnets, ranges and gateways.
func (l *linter) addresses(n *list) {
	for _, e := range n.plugins {
		switch {
		case lease.KeptBy(e.ipamType):
			n.pools = append(n.pools, poolsOf(e)...)
		case e.ipamType == "static":
			l.static(e)
		}
	}
	for i, p := range n.pools {
		l.pool(p)
		for _, o := range n.pools[:i] {
			switch {
			case p.Subnet == o.Subnet && p.Gateway != o.Gateway:
				l.say(Warning, p.document, p.at, "subnet %s: gateway %s, and in line %d %s", p.Subnet, p.Gateway, lineOf(o.document, o.at), o.Gateway)
			case p.Subnet != o.Subnet && p.overlaps(o):
				l.say(Warning, p.document, p.at, "subnet %s: overlaps with %s in line %d", p.Subnet, o.Subnet, lineOf(o.document, o.at))
			}
		}
	}
	for _, e := range n.plugins {
		l.routes(e, n.pools)
	}
}

// poolsOf returns the pools of a section of host-local or cluster-local, as far as they are right:
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
	subnet := v.get("subnet")
	if subnet == nil {
		return p, false
	}
	r, err := ranges.ReadRange(v.raw)
	p = pool{document: d, Range: r, at: subnet.at, gatewayAt: subnet.at}
	if gw := v.get("gateway"); gw != nil {
		p.gatewayAt = gw.at
	}
	return p, err == nil
}

// isEdge reports whether the address is the first or the last of an IPv4 subnet,
// which no interface can have.
func isEdge(a netip.Addr, subnet netip.Prefix) bool {
	return a.Is4() && (a == subnet.Addr() || subnet.Contains(a) && !subnet.Contains(a.Next()))
}

// pool checks one range with its gateway.
func (l *linter) pool(p pool) {
	switch {
	case p.Gateway.Is4() != p.Subnet.Addr().Is4():
		l.say(Error, p.document, p.gatewayAt, "gateway %s: of another family than subnet %s", p.Gateway, p.Subnet)
	case !p.Subnet.Contains(p.Gateway):
		l.say(Warning, p.document, p.gatewayAt, "gateway %s: outside of subnet %s", p.Gateway, p.Subnet)
	case isEdge(p.Gateway, p.Subnet):
		l.say(Error, p.document, p.gatewayAt, "gateway %s: no interface can have the first or the last address of subnet %s", p.Gateway, p.Subnet)
	case p.First == p.Last && p.First == p.Gateway:
		l.say(Error, p.document, p.at, "range %s: its only address is the gateway's, which is not handed out", p)
	}
	if isEdge(p.First, p.Subnet) || isEdge(p.Last, p.Subnet) {
		l.say(Warning, p.document, p.at, "range %s: no interface can have the first or the last address of subnet %s", p, p.Subnet)
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
	if !lease.KeptBy(e.ipamType) || routes == nil || len(pools) == 0 || caps.isTrue("ipRanges") {
		return
	}
	for _, r := range routes.items {
		gw, err := netip.ParseAddr(r.string("gw"))
		if err != nil || gw.IsLinkLocalUnicast() {
			continue
		}
		inside := false
		for _, p := range pools {
			inside = inside || p.Subnet.Contains(gw)
		}
		if !inside {
			l.say(Warning, e.document, r.get("gw").at, "route %s: gateway %s is in no subnet of the network", r.string("dst"), gw)
		}
	}
}
