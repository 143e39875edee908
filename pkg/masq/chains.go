package masq

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// chainName is the reference's name of the container's chain.
func chainName(network, containerID string) string {
	return "CNI-" + iptables.Hash(24, network+containerID)
}

// inChains is the backend of iptables: a chain for the container in table nat.
type inChains struct {
	Attachment
	tool iptables.Tool
}

// add makes the container's chain, one transaction a family.
func (a inChains) add(ctx context.Context, _ *nft.Conn) error {
	tool := a.tool
	return a.eachFamily(func(own Attachment) error {
		tool.V6 = own.Addrs[0].Addr().Is6()
		return own.addChain(ctx, tool, nil)
	})
}

// restore makes the container's chain again where something of it is missing or
// was changed, and with it the rules that enter it.
func (a inChains) restore(ctx context.Context, _ *nft.Conn) error {
	tool := a.tool
	return a.eachFamily(func(own Attachment) error {
		if (inChains{own, tool}).compare(ctx, nil) == nil {
			return nil
		}
		tool.V6 = own.Addrs[0].Addr().Is6()
		saved, err := tool.Save(ctx, "nat")
		if err != nil {
			return err
		}
		var left []string
		for _, l := range iptables.Parse(saved) {
			if slices.ContainsFunc(own.Addrs, func(p netip.Prefix) bool { return own.entersFrom(p, l) }) {
				left = append(left, l.Delete())
			}
		}
		return own.addChain(ctx, tool, left)
	})
}

// eachFamily calls fn with the attachment's addresses of one family, and of the
// other, where it has some.
func (a Attachment) eachFamily(fn func(Attachment) error) error {
	for _, v6 := range []bool{false, true} {
		own := a
		own.Addrs = slices.DeleteFunc(slices.Clone(a.Addrs), func(p netip.Prefix) bool { return p.Addr().Is6() != v6 })
		if len(own.Addrs) == 0 {
			continue
		}
		if err := fn(own); err != nil {
			return err
		}
	}
	return nil
}

// addChain makes the container's chain for the addresses of one family, after
// the lines that delete what is left of it.
func (a Attachment) addChain(ctx context.Context, tool iptables.Tool, left []string) error {
	siblings, err := a.siblings()
	if err != nil {
		return err
	}
	siblings = slices.DeleteFunc(siblings, func(p netip.Prefix) bool { return p.Addr().Is6() != tool.V6 })
	lines := append(left, ":"+chainName(a.Network, a.ContainerID)+" - [0:0]")
	lines = append(lines, iptables.Adds(a.chainRules(append(slices.Clone(a.Addrs), siblings...)))...)
	lines = append(lines, iptables.Adds(a.entries())...)
	return tool.Restore(ctx, a.Gate, "masquerade "+a.ContainerID, iptables.Script("nat", lines))
}

func (a Attachment) ruleComment() string {
	return " -m comment --comment " + iptables.Quote(iptables.Comment("", a.Network, a.ContainerID))
}

// chainRules are the rules of the container's chain for addresses of one family.
func (a Attachment) chainRules(addrs []netip.Prefix) (list []iptables.Rule) {
	chain, multicast := chainName(a.Network, a.ContainerID), "224.0.0.0/4"
	if addrs[0].Addr().Is6() {
		multicast = "ff00::/8"
	}
	for _, p := range addrs {
		list = append(list, iptables.Rule{Chain: chain, Spec: fmt.Sprintf("-d %s -j ACCEPT%s", p.Masked(), a.ruleComment())})
	}
	return append(list, iptables.Rule{Chain: chain, Spec: fmt.Sprintf("! -d %s -j MASQUERADE%s", multicast, a.ruleComment())})
}

// entries are the rules by which packets from the addresses enter the chain.
func (a Attachment) entries() (list []iptables.Rule) {
	for _, p := range a.Addrs {
		list = append(list, iptables.Rule{
			Chain: "POSTROUTING", Spec: fmt.Sprintf("-s %s -j %s%s", p.Addr(), chainName(a.Network, a.ContainerID), a.ruleComment()),
		})
	}
	return list
}

// natTables are where iptables-nft keeps the nat tables.
var natTables = []nft.Table{{Family: nft.IPv4, Name: "nat"}, {Family: nft.IPv6, Name: "nat"}}

// delTranslated deletes the container's chain from iptables-nft's tables, but
// for what enters it from the container's other interfaces.
func (a Attachment) delTranslated(c *nft.Conn, tx *nft.Tx) (dropped []nft.Table, err error) {
	for _, t := range natTables {
		chain := nft.Chain{Table: t, Name: chainName(a.Network, a.ContainerID)}
		info, err := c.GetChain(chain)
		if err != nil {
			return nil, err
		}
		if info == nil {
			continue
		}
		keep, err := a.kept()
		if err != nil {
			return nil, err
		}
		dropped = append(dropped, t)
		err = c.DropChain(tx, chain, nft.Chain{Table: t, Name: "POSTROUTING"}, func(r nft.RuleInfo) bool {
			return keep(func(p netip.Prefix) bool { return from(r, p) })
		})
		if err != nil {
			return nil, err
		}
	}
	return dropped, nil
}

func from(r nft.RuleInfo, p netip.Prefix) bool {
	return slices.ContainsFunc(r.Values, func(v []byte) bool { return slices.Equal(v, p.Addr().AsSlice()) })
}

// kept returns which rules that enter the container's chain stay, by whether a
// rule is from an address: those of its other interfaces, also where these have no
// record.
func (a Attachment) kept() (stays func(from func(netip.Prefix) bool) bool, err error) {
	siblings, err := a.siblings()
	if err != nil {
		return nil, err
	}
	lost := sync.OnceValue(a.hasLostSibling)
	return func(from func(netip.Prefix) bool) bool {
		own := len(a.Addrs) == 0 || slices.ContainsFunc(a.Addrs, from)
		return slices.ContainsFunc(siblings, from) || !own && lost()
	}, nil
}

// hasLostSibling reports whether another interface of the container may run
// without a record.
func (a Attachment) hasLostSibling() bool {
	lost, err := a.unrecorded()
	start := a.aliasOf(plugin.Attachment{ContainerID: a.ContainerID}) // an alias without the interface's name
	return err != nil || slices.ContainsFunc(lost, func(alias string) bool { return strings.HasPrefix(alias, start) })
}

// gcTranslated deletes the chains of the network's containers that are not
// valid from iptables-nft's tables.
func (a Attachment) gcTranslated(c *nft.Conn, tx *nft.Tx) error {
	for _, t := range natTables {
		rules, err := c.Rules(nft.Chain{Table: t, Name: "POSTROUTING"})
		if err != nil {
			return err
		}
		for _, chain := range a.stale(rules) {
			if err := c.DropChain(tx, nft.Chain{Table: t, Name: chain}, nft.Chain{Table: t, Name: "POSTROUTING"}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// stale returns the chains of the network's containers that are not valid, as
// the comments of the rules that enter them say, and that no other container needs.
func (a Attachment) stale(rules []nft.RuleInfo) (chains []string) {
	for _, r := range rules {
		id, ours := strings.CutPrefix(r.Comment, fmt.Sprintf("name: %q id: ", a.Network))
		id = strings.Trim(id, `"`)
		live := slices.ContainsFunc(a.living, func(v plugin.Attachment) bool { return v.ContainerID == id })
		if !ours || live || r.Target != chainName(a.Network, id) || slices.Contains(chains, r.Target) {
			continue
		}
		// A container of another network may have the same chain.
		all, err := a.Journal.Joined(journal.Key{Network: a.Network, ContainerID: id})
		other := func(r journal.Record) bool { return masquerades(r.Plugin) && r.Network != a.Network }
		if err == nil && !slices.ContainsFunc(all, other) {
			chains = append(chains, r.Target)
		}
	}
	return chains
}

// delLegacy deletes the container's chain from the kernel's old tables, where
// those are loaded.
func (a Attachment) delLegacy(ctx context.Context) error {
	chain := chainName(a.Network, a.ContainerID)
	var failed error
	err := a.eachLegacy(ctx, func(rules []iptables.Line) []string {
		if !iptables.HasChain(rules, chain) {
			return nil
		}
		keep, err := a.kept()
		if failed = err; err != nil {
			return nil
		}
		return iptables.DropChain(rules, chain, func(l iptables.Line) bool {
			return keep(func(p netip.Prefix) bool { return l.Has("-s", hostPrefix(p.Addr()).String()) })
		})
	})
	return errors.Join(err, failed)
}

func hostPrefix(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, ip.BitLen()) }

func (a Attachment) gcLegacy(ctx context.Context) error {
	return a.eachLegacy(ctx, func(rules []iptables.Line) (script []string) {
		var infos []nft.RuleInfo
		for _, l := range rules {
			if l.Chain == "POSTROUTING" {
				infos = append(infos, nft.RuleInfo{Comment: l.Value("--comment"), Target: l.Value("-j")})
			}
		}
		for _, chain := range a.stale(infos) {
			script = append(script, iptables.DropChain(rules, chain, nil)...)
		}
		return script
	})
}

// eachLegacy lets change say what to do with the rules of each old nat table.
func (a Attachment) eachLegacy(ctx context.Context, change func([]iptables.Line) []string) error {
	var errs []error
	for _, tool := range iptables.Both(true) {
		if tool.Loaded("nat") {
			errs = append(errs, tool.Change(ctx, a.Gate, "nat", change))
		}
	}
	return errors.Join(errs...)
}

// entersFrom reports whether a rule has packets from the address enter the
// container's chain.
func (a Attachment) entersFrom(p netip.Prefix, l iptables.Line) bool {
	chain := chainName(a.Network, a.ContainerID)
	return l.Chain == "POSTROUTING" && l.Value("-j") == chain && l.Has("-s", hostPrefix(p.Addr()).String())
}

// compare compares the container's chain, and what enters it, with what Add makes.
func (a inChains) compare(ctx context.Context, _ *nft.Conn) error {
	tool := a.tool
	return a.eachFamily(func(own Attachment) error {
		tool.V6 = own.Addrs[0].Addr().Is6()
		held, err := tool.Holds(ctx, iptables.Script("nat", iptables.Checks(own.entries())))
		if err == nil && held {
			held, err = own.fills(ctx, tool)
		}
		if err == nil && !held {
			return cnierr.Check("masquerading of %v: rules are missing in iptables (netcleat reconcile restores them)", own.Addrs)
		}
		return err
	})
}

// fills reports whether the container's chain has its rules, whoever has written them:
// containers of other networks may share it.
func (a Attachment) fills(ctx context.Context, tool iptables.Tool) (bool, error) {
	rules := a.chainRules(a.Addrs)
	held, err := tool.Holds(ctx, iptables.Script("nat", iptables.Checks(rules)))
	if held || err != nil {
		return held, err
	}
	saved, err := tool.Save(ctx, "nat")
	lines := iptables.Parse(saved)
	missing := slices.ContainsFunc(rules, func(r iptables.Rule) bool {
		return !slices.ContainsFunc(lines, func(l iptables.Line) bool { return l.Does(r) })
	})
	return !missing, err
}
