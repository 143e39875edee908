package portmap

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// check compares the kernel's rules with what ADD made.
func check(ctx context.Context, c *plugin.Call, conf config) error {
	if err := c.Chained("Required prevResult missing"); err != nil {
		return err
	}
	if len(conf.Mappings) == 0 {
		return nil
	}
	j, err := recorded(c)
	if err != nil {
		return err
	}
	if len(j.Targets) == 0 {
		return nil // attached by the reference, or without an address
	}
	return j.check(ctx)
}

func (j *job) check(ctx context.Context) (err error) {
	c, err := nft.Dial(nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := j.checkLocalnet(); err != nil {
		return err
	}
	if j.Backend == iptables.IPTables {
		return j.checkChains(ctx, c)
	}
	return j.each(func(g group, target netip.Prefix) error {
		have, err := c.Ruleset(g.table)
		if err != nil {
			return err
		}
		missing, err := j.lacks(have, g, target)
		if err != nil {
			return err
		}
		if missing != nil {
			return cnierr.Check("published ports: %s is missing in %s (netcleat reconcile restores it)", missing, g.table)
		}
		for _, p := range j.elements(g, target.Addr()) {
			if err := j.checkElements(c, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkElements looks for each element with this container as its target or, as
// its other networks may have come first, as its owner.
func (j *job) checkElements(c *nft.Conn, p placed) error {
	elems := slices.DeleteFunc(slices.Clone(p.elems), func(e nft.Elem) bool { return e.End })
	var keys [][]byte
	for _, e := range elems {
		keys = append(keys, e.Key)
	}
	found, err := c.Find(p.set, keys...)
	if err != nil {
		return err
	}
	mine := 0
	for _, e := range found {
		i := slices.IndexFunc(elems, func(w nft.Elem) bool { return bytes.Equal(w.Key, e.Key) })
		asMade := e.Comment != j.owner() || i >= 0 && bytes.Equal(e.Data, elems[i].Data)
		if !e.Expires && asMade && ownerOf(e.Comment).is(j.key.ContainerID) {
			mine++
		}
	}
	if mine < len(elems) {
		return cnierr.Check("published ports: %d of %d are missing in map %s of %s (netcleat reconcile restores them)", len(elems)-mine, len(elems), p.set.Name, p.set.Table)
	}
	return nil
}

func (j *job) checkChains(ctx context.Context, c *nft.Conn) error {
	for _, target := range j.Targets {
		if err := j.checkChain(ctx, c, target); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) checkChain(ctx context.Context, c *nft.Conn, target netip.Prefix) error {
	tool := j.tool(target.Addr().Is6())
	if len(j.pick(tool.V6)) == 0 {
		return nil
	}
	t, err := j.look(ctx, c, tool)
	if err != nil {
		return err
	}
	leads, err := j.leads(ctx, c, tool)
	if err != nil {
		return err
	}
	marks := !j.SNAT || j.SetMarkChain != "" || t.chains[setMarkChain] && t.chains[masqChain] && t.enters["POSTROUTING "+masqChain]
	guarded := t.guarded || j.Localnet == "" || tool.V6
	if !leads || !marks || !guarded || !t.enters["PREROUTING "+dnatChain] || !t.enters["OUTPUT "+dnatChain] {
		return cnierr.Check("published ports: chain %s, or what leads to it, is missing (netcleat reconcile restores it)", j.chainName("DN"))
	}
	return nil
}

// leads reports whether the container's chain exists and is entered.
func (j *job) leads(ctx context.Context, c *nft.Conn, tool iptables.Tool) (bool, error) {
	own := j.chainName("DN")
	if tool.Translated() {
		nat := nft.Table{Family: layoutOf(tool.V6).table.Family, Name: "nat"}
		entries, err := c.Rules(nft.Chain{Table: nat, Name: dnatChain})
		if err != nil {
			return false, err
		}
		rules, err := c.Rules(nft.Chain{Table: nat, Name: own})
		return len(rules) > 0 && slices.ContainsFunc(entries, func(r nft.RuleInfo) bool { return r.Target == own }), err
	}
	saved, err := tool.Save(ctx, "nat")
	lines := iptables.Parse(saved)
	entered := slices.ContainsFunc(lines, func(l iptables.Line) bool { return l.Value("-j") == own })
	filled := slices.ContainsFunc(lines, func(l iptables.Line) bool { return l.Rule && l.Chain == own })
	return entered && filled, err
}
