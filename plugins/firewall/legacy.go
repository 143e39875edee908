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
	return o.tool.Change(ctx, j.gate, "filter", func(lines []iptables.Line) []string { return j.script(lines, o.tool.V6) })
}

// script adds what is missing.
func (j *job) script(lines []iptables.Line, v6 bool) (script []string) {
	entered := func(chain, target string) bool {
		return slices.ContainsFunc(lines, func(l iptables.Line) bool { return l.Chain == chain && l.Value("-j") == target })
	}
	for _, chain := range []string{j.AdminChain, cniForward} {
		if !iptables.HasChain(lines, chain) {
			script = append(script, "-N "+chain)
		}
	}
	if !entered(forward, cniForward) {
		script = append(script, fmt.Sprintf("-I %s 1 -m comment --comment %q -j %s", forward, rulesComment, cniForward))
	}
	if !entered(cniForward, j.AdminChain) {
		script = append(script, fmt.Sprintf("-I %s 1 -m comment --comment %q -j %s", cniForward, adminComment, j.AdminChain))
	}
	for _, p := range j.pick(v6) {
		if tag := j.tag(p, "to"); !tagged(lines, tag) {
			script = append(script, fmt.Sprintf("-A %s -d %s -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment %s -j ACCEPT", cniForward, p, iptables.Quote(tag)))
		}
		if tag := j.tag(p, "from"); !tagged(lines, tag) {
			script = append(script, fmt.Sprintf("-A %s -s %s -m comment --comment %s -j ACCEPT", cniForward, p, iptables.Quote(tag)))
		}
	}
	return script
}

func tagged(lines []iptables.Line, comment string) bool {
	return slices.ContainsFunc(lines, func(l iptables.Line) bool { return l.Rule && l.Value("--comment") == comment })
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
	saved, err := o.tool.Save(ctx, "filter")
	if err != nil {
		return err
	}
	if missing := j.script(iptables.Parse(saved), o.tool.V6); len(missing) > 0 {
		return cnierr.Check("iptables: %q is missing (netcleat reconcile restores it)", missing[0])
	}
	return nil
}
