package portmap

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
)

// delNetwork removes the whole table of a family where no other network publishes
// in it; else it has elements, unless that is nil, remove the attachment's own, and
// removes the network's chain and the maps that hold nothing any more. No record
// speaks of others of the network: no element may either, for records can be lost.
func (j *job) delNetwork(c *nft.Conn, tx *nft.Tx, l layout, elements func() error) error {
	if elements == nil {
		elements = func() error { return nil }
	}
	there, err := c.HasTable(l.table)
	if nft.Missing(err) || err == nil && !there {
		return nil
	}
	if err != nil {
		return err
	}
	others, err := j.others(c, l)
	if err != nil {
		return err
	}
	if others.siblings {
		return elements()
	}
	have, err := c.Ruleset(l.table)
	if err != nil {
		return err
	}
	if !others.strangers && j.lastOf(have, l) {
		tx.DeleteTable(l.table)
		return nil
	}
	if err := elements(); err != nil {
		return err
	}
	chain := l.network(j.key.Network)
	if len(have[chain.Name]) > 0 || jumpsTo(have[networks], chain.Name) {
		if err := c.DropChain(tx, chain, l.chain(networks), nil); err != nil {
			return err
		}
	}
	return j.delGroups(c, tx, l, have)
}

func jumpsTo(rules []nft.RuleInfo, chain string) bool {
	return slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return r.Target == chain })
}

// others are who has elements beside those that are about to go.
type others struct {
	siblings  bool // of the same network
	strangers bool // of other networks
	nearby    bool // at addresses of the container's own subnet
}

// others looks at all elements of one family. It is for the last attachment of a
// network that has a record: with many elements it takes time.
func (j *job) others(c *nft.Conn, l layout) (found others, err error) {
	err = l.eachMap(c, func(_ nft.Set, elems []nft.Elem) error {
		for _, e := range elems {
			o := ownerOf(e.Comment)
			if e.Comment == "" || e.Expires || j.goes(o) {
				continue
			}
			if o.network == journal.Cut(j.key.Network, networkRoom) {
				found.siblings = true
			} else {
				found.strangers = true
			}
			found.nearby = found.nearby || j.isNear(e.Data)
		}
		return nil
	})
	return found, err
}

// goes reports whether an owner's elements are about to go: the attachment's own,
// or those that a GC names.
func (j *job) goes(o owner) bool {
	if j.stale != nil {
		return j.stale(o)
	}
	return o == ownerOf(j.owner())
}

// isNear reports whether the address that an element's data begins with is of one
// of the container's subnets, or of those of its bridge.
func (j *job) isNear(data []byte) bool {
	return slices.ContainsFunc(append(slices.Clone(j.Targets), j.near...), func(p netip.Prefix) bool {
		n := p.Addr().BitLen() / 8
		if len(data) < n {
			return false
		}
		a, ok := netip.AddrFromSlice(data[:n])
		return ok && p.Contains(a)
	})
}

// lastOf reports whether the table has no other network, and nothing of the
// reference's.
func (j *job) lastOf(have nft.Ruleset, l layout) bool {
	own := l.network(j.key.Network).Name
	return !foreign(have) && !slices.ContainsFunc(have[networks], func(r nft.RuleInfo) bool { return r.Target != own })
}

// foreign reports whether the table holds the reference's rules, too.
func foreign(have nft.Ruleset) bool {
	for _, name := range theirChains {
		if slices.ContainsFunc(have[name], func(r nft.RuleInfo) bool { return r.Target == "" && r.Comment != "" }) {
			return true
		}
	}
	return false
}

// delGroups removes the maps of conditions that hold nothing but the attachment's
// own: those of its network, and those of an earlier configuration.
func (j *job) delGroups(c *nft.Conn, tx *nft.Tx, l layout, have nft.Ruleset) error {
	for _, r := range have[hostports] {
		suffix, ok := strings.CutPrefix(r.Target, hostports+"_")
		if !ok {
			continue
		}
		if err := j.delGroup(c, tx, group{layout: l, suffix: "_" + suffix}); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) delGroup(c *nft.Conn, tx *nft.Tx, g group) error {
	for _, s := range g.sets() {
		elems, err := c.Elements(s)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(elems, func(e nft.Elem) bool { return e.Comment != "" && e.Comment != j.owner() }) {
			return nil
		}
	}
	if err := c.DropChain(tx, g.lookups(), g.chain(hostports), nil); err != nil {
		return err
	}
	for _, s := range g.sets() {
		tx.DeleteSet(s)
	}
	return nil
}
