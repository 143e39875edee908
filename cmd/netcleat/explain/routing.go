package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/nl"
)

// discards are the types of routes that lead nowhere, as ip(8) calls them.
var discards = map[uint8]string{unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit"}

// policy looks for routes of the sandbox that discard packets, and for rules that
// keep them from the routes that the plugins made.
func (x *exam) policy() error {
	if !x.sandbox.Up() {
		return nil
	}
	routes := slices.DeleteFunc(slices.Clone(x.table), func(r nl.Route) bool { return r.Table != unix.RT_TABLE_MAIN })
	for _, r := range routes {
		word, is := discards[r.Type]
		if !is || r.Protocol == unix.RTPROT_KERNEL || x.separate() {
			continue
		}
		x.problem(x.main(), "no route in the sandbox that discards packets", fmt.Sprintf("there is %s %s", word, r.Dst),
			finding.Mend{Command: x.inside(ipOf(r.Dst.Addr()) + " route del " + word + " " + r.Dst.String()), When: "unless the container wants it"})
	}
	for _, h := range x.hops() {
		if err := x.ruledOut(h.addr.Addr(), routes); err != nil {
			return err
		}
	}
	return nil
}

// separate reports whether a plugin has given the container routing tables of its
// own, with rules that lead there.
func (x *exam) separate() bool {
	return slices.ContainsFunc(x.container, func(r show.Row) bool { return slices.Contains(r.Plugins, "sbr") || slices.Contains(r.Plugins, "vrf") })
}

// ruledOut looks whether a rule keeps what comes from the address from the
// sandbox's default route.
func (x *exam) ruledOut(a netip.Addr, routes []nl.Route) error {
	has := slices.ContainsFunc(routes, func(r nl.Route) bool {
		return r.Dst.Bits() == 0 && r.Dst.Addr().Is4() == a.Is4() && discards[r.Type] == ""
	})
	if !has || x.separate() {
		return nil
	}
	r, err := x.pair.Sandbox.RouteFrom(a, worldOf(a), 0)
	if err != nil && !nl.NoRoute(err) || err == nil && discards[r.Type] == "" {
		return ignoreNoRoute(err)
	}
	rules, err := x.pair.Sandbox.Rules()
	if err != nil {
		return err
	}
	rule := leads(rules, worldOf(a), a)
	if rule == nil {
		return nil
	}
	x.problem(x.main(), "the sandbox's default route for what comes from "+a.String(),
		fmt.Sprintf("rule %d, %s, comes before it and leads nowhere", rule.Priority, rule), finding.Run(x.inside(before(*rule, "from", netip.PrefixFrom(a, a.BitLen())))))
	return nil
}

// wayOut looks whether a rule of the host keeps what comes from the container from
// the host's own route to the world.
func (x *exam) wayOut(h hop, gw *nl.Link) error {
	a := h.addr.Addr()
	if _, err := x.toWorld(a); err != nil {
		return ignoreNoRoute(err) // it is the host's trouble, and no container's
	}
	r, err := x.conn.RouteFrom(a, worldOf(a), gw.Index)
	if err == nil && discards[r.Type] == "" {
		return nil
	}
	rules, err := x.hostRules()
	if err != nil {
		return err
	}
	rule := leads(rules, worldOf(a), a)
	if rule == nil {
		return nil
	}
	x.problem(x.main(), "the host's route for what comes from "+a.String(),
		fmt.Sprintf("rule %d, %s, comes before the main table and leads nowhere", rule.Priority, rule), finding.Run(before(*rule, "from", together(rule.Src, h))))
	return nil
}

// ignoreNoRoute is err, but nil where that says that there is no route.
func ignoreNoRoute(err error) error {
	if err != nil && nl.NoRoute(err) {
		return nil
	}
	return err
}

func worldOf(a netip.Addr) netip.Addr {
	if a.Is6() {
		return world6
	}
	return world4
}

// leads returns the first rule before the main table that is for packets to dst
// from src, of which either may be invalid; or nil.
func leads(rules []nl.Rule, dst, src netip.Addr) *nl.Rule {
	for _, r := range slices.SortedStableFunc(slices.Values(rules), func(a, b nl.Rule) int { return cmp.Compare(a.Priority, b.Priority) }) {
		switch {
		case r.IPv6 != dst.Is6(), r.Table == 0, r.Table == unix.RT_TABLE_LOCAL, r.Dst.IsValid() && !r.Dst.Contains(dst), r.Src.IsValid() && !r.Src.Contains(src):
		case r.Table == unix.RT_TABLE_MAIN:
			return nil
		default:
			return &r
		}
	}
	return nil
}

// before is a command that has the main table looked up before the rule: what is
// somebody's stays as it is.
func before(r nl.Rule, direction string, p netip.Prefix) string {
	what := p.String()
	if p.IsSingleIP() {
		what = p.Addr().String()
	}
	return fmt.Sprintf("%s rule add pref %d %s %s lookup main", ipOf(p.Addr()), max(r.Priority, 2)-1, direction, what)
}

// together is what a rule for a prefix keeps of the network: other containers suffer from it
// as this one does.
func together(rule netip.Prefix, h hop) netip.Prefix {
	if subnet := h.addr.Masked(); !rule.IsValid() || rule.Bits() <= subnet.Bits() {
		return subnet
	}
	return rule
}

// ipOf is the ip(8) command of a family.
func ipOf(a netip.Addr) string {
	if a.Is6() {
		return "ip -6"
	}
	return "ip"
}
