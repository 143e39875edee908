package sbr

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// state is the plugin's part of the record: what ADD changes in the sandbox.
type state struct {
	Index int        `json:"index"` // of the interface
	Rules []nl.Rule  `json:"rules"`
	Added []nl.Route `json:"added,omitempty"` // to tables of the attachment's own
	// Moved were taken out of the main table, Hinted stand there with a source.
	Moved  []nl.Route `json:"moved,omitempty"`
	Hinted []nl.Route `json:"hinted,omitempty"`
}

// firstTable is where the search for a free table begins, as the reference's
// does.
const firstTable = 100

// tables hands out numbers of tables that nothing uses.
type tables struct {
	used map[uint32]bool
	next uint32
}

// usedTables are those with a route or a rule in either family.
func usedTables(rules []nl.Rule, routes []nl.Route) *tables {
	t := &tables{used: map[uint32]bool{}, next: firstTable}
	for _, r := range rules {
		t.used[r.Table] = true
	}
	for _, r := range routes {
		t.used[r.Table] = true
	}
	return t
}

func (t *tables) take() uint32 {
	for t.used[t.next] {
		t.next++
	}
	t.next++
	return t.next - 1
}

// withTable plans for a table that the user looks after.
func withTable(index int, table uint32, addrs []address) state {
	st := state{Index: index}
	for _, a := range addrs {
		st.Rules = append(st.Rules, nl.From(a.Prefix.Addr(), table))
	}
	return st
}

// plan gives every address a table with the interface's routes, and empties the
// main table of them. main is what the main table has for the interface.
func (c config) plan(index int, addrs []address, main []nl.Route, free *tables) state {
	st := state{Index: index}
	for _, a := range addrs {
		table := free.take()
		st.Rules = append(st.Rules, nl.From(a.Prefix.Addr(), table))
		var own []nl.Route
		for _, r := range main {
			if a.takes(r, addrs) {
				own = append(own, r)
			}
		}
		own = a.withDefault(index, own, c.gateway(a.Prefix.Addr()))
		nl.SortOnLinkFirst(own)
		for _, r := range own {
			r.Table = table
			st.Added = append(st.Added, r)
		}
	}
	for _, r := range main {
		source := sourceFor(r.Dst, addrs)
		switch {
		case r.Dst.Addr().IsLinkLocalUnicast() && r.Dst.Addr().Is6():
			// Addresses of the link itself have no other table.
		case !hasFamily(addrs, r.Dst.Addr().Is4()):
			// There is no address to tell these packets by.
		case c.SourceHints && !r.Gateway.IsValid() && source.IsValid():
			if !r.Source.IsValid() {
				st.Hinted = append(st.Hinted, r)
			}
		default:
			st.Moved = append(st.Moved, r)
		}
	}
	nl.SortOnLinkFirst(st.Moved)
	return st
}

// takes reports whether the route goes to the address's table: it has the
// address's subnet in its source or gateway, or neither of them, or in no
// address's.
func (a address) takes(r nl.Route, addrs []address) bool {
	if a.Prefix.Addr().Is4() != r.Dst.Addr().Is4() {
		return false
	}
	if !r.Source.IsValid() && !r.Gateway.IsValid() {
		return true
	}
	return a.concerns(r) || !slices.ContainsFunc(addrs, func(o address) bool { return o.concerns(r) })
}

func (a address) concerns(r nl.Route) bool {
	return r.Source.IsValid() && a.Prefix.Contains(r.Source) || r.Gateway.IsValid() && a.Prefix.Contains(r.Gateway)
}

// withDefault sees to a default route, which a plugin before may have left out.
// A configured gateway goes before the route that there is.
func (a address) withDefault(index int, own []nl.Route, configured netip.Addr) []nl.Route {
	gw := a.Gateway
	if configured.IsValid() {
		gw = configured
		own = slices.DeleteFunc(own, func(r nl.Route) bool { return r.Dst.Bits() == 0 })
	}
	if !gw.IsValid() || slices.ContainsFunc(own, func(r nl.Route) bool { return r.Dst.Bits() == 0 && r.Gateway == gw }) {
		return own
	}
	return append(own, nl.Route{
		Dst: netip.PrefixFrom(unspecified(gw), 0), Gateway: gw, Index: index,
		OnLink: !a.Prefix.Contains(gw) && !gw.IsLinkLocalUnicast(),
	})
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// sourceFor returns the address whose subnet the destination is.
func sourceFor(dst netip.Prefix, addrs []address) netip.Addr {
	for _, a := range addrs {
		if a.Prefix.Masked() == dst.Masked() {
			return a.Prefix.Addr()
		}
	}
	return netip.Addr{}
}

func hasFamily(addrs []address, is4 bool) bool {
	return slices.ContainsFunc(addrs, func(a address) bool { return a.Prefix.Addr().Is4() == is4 })
}

// change returns the requests that carry the plan out.
func (st state) change(addrs []address) []*nl.Message {
	all := nl.Hops(st.Added, nl.AddRoute)
	for _, r := range st.Rules {
		all = append(all, nl.AddRule(r))
	}
	for _, r := range st.Hinted {
		r.Source = sourceFor(r.Dst, addrs)
		all = append(all, nl.ReplaceRoute(r))
	}
	for _, r := range st.Moved {
		all = append(all, nl.DelRoute(r))
	}
	return all
}

// takeRules returns the requests that delete the rules.
func (st state) takeRules() []*nl.Message {
	var all []*nl.Message
	for _, r := range st.Rules {
		all = append(all, nl.DelRule(r))
	}
	return all
}

// moveBack returns the requests that put the routes back into the main table.
func (st state) moveBack() []*nl.Message {
	var all []*nl.Message
	for _, r := range st.Added {
		all = append(all, nl.DelRoute(r))
	}
	for _, r := range st.Hinted {
		all = append(all, nl.ReplaceRoute(r))
	}
	moved := nl.Hops(st.Moved, nl.AddRoute)
	for _, m := range moved {
		m.Ignore = []unix.Errno{unix.EEXIST}
	}
	return append(all, moved...)
}
