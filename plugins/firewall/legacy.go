package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/nft"
)

// oldTables is the kernel's old filter table of one family.
type oldTables struct{ tool iptables.Tool }

// accept lets the network's prefixes through, unless they are. A host without
// the family's tool has no rules of that family either.
func (o oldTables) accept(ctx context.Context, j *job, _ *nft.Conn) error {
	if !o.tool.Installed() {
		return nil
	}
	rules, err := o.tool.Restored(ctx, "filter", o.rules(j), func(l iptables.Line) bool { return o.isLeft(j, l) })
	if err != nil || len(rules) == 0 {
		return err
	}
	return o.tool.Change(ctx, j.gate, "filter", func(lines []iptables.Line) (script []string) {
		for _, chain := range []string{j.AdminChain, cniForward} {
			if !iptables.HasChain(lines, chain) {
				script = append(script, "-N "+chain)
			}
		}
		return append(script, rules...)
	})
}

// rules are those that lead to the chains, and those of the network's prefixes.
func (o oldTables) rules(j *job) []iptables.Rule {
	list := []iptables.Rule{
		{Chain: forward, Spec: fmt.Sprintf("-m comment --comment %q -j %s", rulesComment, cniForward), First: true},
		{Chain: cniForward, Spec: fmt.Sprintf("-m comment --comment %q -j %s", adminComment, j.AdminChain), First: true},
	}
	add := func(p netip.Prefix, which, match string) {
		list = append(list, iptables.Rule{Chain: cniForward, Spec: match + " -m comment --comment " + iptables.Quote(j.tag(p, which)) + " -j ACCEPT"})
	}
	for _, p := range j.pick(o.tool.V6) {
		add(p, "to", fmt.Sprintf("-d %s -m conntrack --ctstate RELATED,ESTABLISHED,DNAT", p))
		add(p, "from", fmt.Sprintf("-s %s", p))
	}
	return list
}

// isLeft reports whether a line is what is left of the rules: it leads to one of the
// chains, or has the comment of a prefix's.
func (o oldTables) isLeft(j *job, l iptables.Line) bool {
	target, comment := l.Value("-j"), l.Value("--comment")
	if l.Chain == forward && target == cniForward || l.Chain == cniForward && target == j.AdminChain {
		return true
	}
	return l.Chain == cniForward && slices.ContainsFunc(j.pick(o.tool.V6), func(p netip.Prefix) bool {
		return comment == j.tag(p, "to") || comment == j.tag(p, "from")
	})
}

// delLegacy is delNative for the kernel's old tables, where those are loaded.
func (j *job) delLegacy(ctx context.Context, prefixes []netip.Prefix) error {
	tools := slices.DeleteFunc(iptables.Both(true), func(t iptables.Tool) bool { return !t.Loaded("filter") || !t.Installed() })
	cleared := false
	var errs []error
	for _, tool := range tools {
		errs = append(errs, tool.Change(ctx, j.gate, "filter", func(lines []iptables.Line) []string {
			script := j.undoScript(lines, prefixes)
			cleared = cleared || slices.Contains(script, "-X "+cniForward)
			return script
		}))
	}
	if cleared {
		errs = append(errs, j.delOldStages(ctx, tools))
	}
	return errors.Join(errs...)
}

func (j *job) undoScript(lines []iptables.Line, prefixes []netip.Prefix) (script []string) {
	admin, left := "", 0
	for _, l := range lines {
		switch {
		case !l.Rule || l.Chain != cniForward:
		case j.staleLine(l, prefixes):
			script = append(script, l.Delete())
		default:
			left++
			if l.Value("--comment") == adminComment {
				admin = l.Value("-j")
			}
		}
	}
	if len(script) == 0 || left != 1 || admin == "" {
		return script
	}
	script = append(script, iptables.DropChain(lines, cniForward, nil)...)
	if !slices.ContainsFunc(lines, func(l iptables.Line) bool { return l.Rule && l.Chain == admin }) {
		script = append(script, "-X "+admin)
	}
	return script
}

func (j *job) staleLine(l iptables.Line, prefixes []netip.Prefix) bool {
	comment := l.Value("--comment")
	if len(j.Prefixes) == 0 && len(j.ips) == 0 {
		return j.isCollected(comment)
	}
	for _, p := range prefixes {
		if comment == j.tag(p, "to") || comment == j.tag(p, "from") {
			return true
		}
	}
	return comment == "" && l.Value("-j") == "ACCEPT" && slices.ContainsFunc(j.ips, func(ip netip.Addr) bool {
		host := netip.PrefixFrom(ip, ip.BitLen()).String()
		return l.Has("-s", host) || l.Has("-d", host)
	})
}

func (o oldTables) check(ctx context.Context, j *job, _ *nft.Conn) error {
	if !o.tool.Installed() {
		return nil
	}
	held, err := o.tool.Holds(ctx, iptables.Script("filter", iptables.Checks(o.rules(j))))
	if err == nil && !held {
		return cnierr.Check("rules of network %s are missing in the legacy filter table (netcleat reconcile restores them)", j.key.Network)
	}
	return err
}
