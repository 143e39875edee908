package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// The reference's chains.
const (
	forward      = "FORWARD"
	cniForward   = "CNI-FORWARD"
	rulesComment = "CNI firewall plugin rules"
	adminComment = "CNI firewall plugin admin overrides"
)

// native is iptables-nft's filter table of one family. The rules are encoded as
// iptables-nft does it, which goes on to list and change them.
type native struct{ v6 bool }

func (n native) table() nft.Table {
	if n.v6 {
		return nft.Table{Family: nft.IPv6, Name: "filter"}
	}
	return nft.Table{Family: nft.IPv4, Name: "filter"}
}

func (n native) chain(name string) nft.Chain { return nft.Chain{Table: n.table(), Name: name} }

// filters reports whether iptables-nft's FORWARD may drop packets: by its policy, or
// by a rule that others have there. One that is there for accepts alone, such as of
// a network with backend nftables beside the legacy table, does not.
func (n native) filters(c *nft.Conn) bool {
	info, err := c.GetChain(n.chain(forward))
	if err != nil || info == nil {
		return false
	}
	rules, err := c.Rules(n.chain(forward))
	return err != nil || info.Drops || slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return r.Target != cniForward })
}

// tag is the comment of a prefix's two rules; which tells them apart. Those of a
// single address are the attachment's own.
func (j *job) tag(p netip.Prefix, which string) string {
	tag := j.ours() + which + " " + p.String()
	if p.IsSingleIP() {
		tag += " of " + journal.Cut(j.key.ContainerID, 32)
	}
	return tag
}

// ours begins the comments of all of the network's rules.
func (j *job) ours() string { return journal.Cut("net: "+j.key.Network, 60) + ", " }

// accept lets the network's prefixes through, unless they are.
func (n native) accept(ctx context.Context, j *job, c *nft.Conn) error {
	what := "let network " + j.key.Network + " through"
	err := c.Update(ctx, what, func(tx *nft.Tx) error { return n.build(j, c, tx, xtStates) })
	if errors.Is(err, unix.ENOENT) {
		// Without nft_compat there is no iptables-nft to read the rules either.
		err = c.Update(ctx, what, func(tx *nft.Tx) error { return n.build(j, c, tx, ctStates) })
	}
	return err
}

func (n native) build(j *job, c *nft.Conn, tx *nft.Tx, in states) error {
	rules, err := c.Rules(n.chain(cniForward))
	if err != nil {
		return err
	}
	if err := n.ensureChains(j, c, tx, rules); err != nil {
		return err
	}
	for _, p := range j.pick(n.v6) {
		for i, r := range n.rules(j, p, in) {
			if n.has(rules, j, p, i) {
				continue
			}
			deleteChanged(tx, rules, r, "") // an earlier version's, or changed
			tx.Append(r)
		}
	}
	return nil
}

// rules returns the rules that let a prefix through.
func (n native) rules(j *job, p netip.Prefix, in states) (list []nft.Rule) {
	add := func(which string, match ...[]nft.Expr) {
		e := append(nft.Join(match...), nft.Counter(), nft.Decide(nft.Accept))
		list = append(list, nft.Rule{Chain: n.chain(cniForward), Exprs: e, Comment: j.tag(p, which)})
	}
	to := nft.Addr(nft.Destination, nft.Equal, p)
	add("to", to, in.answers())
	add("published", to, in.mapped())
	add("from", nft.Addr(nft.Source, nft.Equal, p))
	return list
}

// has reports whether the i-th of a prefix's rules is there, in either form.
func (n native) has(have []nft.RuleInfo, j *job, p netip.Prefix, i int) bool {
	return slices.ContainsFunc(have, func(r nft.RuleInfo) bool {
		return r.Is(n.rules(j, p, xtStates)[i]) || r.Is(n.rules(j, p, ctStates)[i])
	})
}

// enters reports whether a rule leads every packet to the chain.
func enters(rules []nft.RuleInfo, chain string) bool {
	want := []nft.Expr{nft.Counter(), nft.Jump(chain)}
	return slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return r.Does(want) || r.Does(want[1:]) })
}

// ensureChains makes the chains and the rules that lead to them.
func (n native) ensureChains(j *job, c *nft.Conn, tx *nft.Tx, rules []nft.RuleInfo) error {
	there, err := c.GetChain(n.chain(forward))
	if err != nil {
		return err
	}
	if there == nil {
		tx.EnsureTable(n.table(), "")
		base := n.chain(forward)
		base.Hook = &nft.Hook{Type: "filter", Num: unix.NF_INET_FORWARD, Priority: 0}
		tx.EnsureChain(base)
	}
	entries, err := c.Rules(n.chain(forward))
	if err != nil {
		return err
	}
	if !enters(entries, cniForward) {
		tx.EnsureChain(n.chain(cniForward))
		deleteChanged(tx, entries, nft.Rule{Chain: n.chain(forward), Comment: rulesComment}, cniForward)
		tx.Insert(nft.Rule{Chain: n.chain(forward), Exprs: []nft.Expr{nft.Counter(), nft.Jump(cniForward)}, Comment: rulesComment})
	}
	if !enters(rules, j.AdminChain) {
		tx.EnsureChain(n.chain(cniForward))
		tx.EnsureChain(n.chain(j.AdminChain))
		deleteChanged(tx, rules, nft.Rule{Chain: n.chain(cniForward), Comment: adminComment}, j.AdminChain)
		tx.Insert(nft.Rule{Chain: n.chain(cniForward), Exprs: []nft.Expr{nft.Counter(), nft.Jump(j.AdminChain)}, Comment: adminComment})
	}
	return nil
}

// deleteChanged deletes what is left of a rule that has been changed, and is known by
// its comment and by the chain that it leads to.
func deleteChanged(tx *nft.Tx, have []nft.RuleInfo, r nft.Rule, target string) {
	for _, old := range have {
		if old.Comment == r.Comment && old.Target == target {
			tx.DeleteRule(r.Chain, old.Handle)
		}
	}
}

// states match answers, and connections to published ports. nft(8) prints only one
// half of a match of iptables' that has states of both kinds, and a ruleset that
// was saved and loaded has lost the other: therefore they are two.
type states struct{ answers, mapped func() []nft.Expr }

var (
	xtStates = states{func() []nft.Expr { return xtState(xtEstablished | xtRelated) }, func() []nft.Expr { return xtState(xtDNAT) }}
	ctStates = states{
		func() []nft.Expr { return ctHas(unix.NFT_CT_STATE, ctEstablished|ctRelated) },
		func() []nft.Expr { return ctHas(unix.NFT_CT_STATUS, ctDNAT) },
	}
)

// States of xt_conntrack: bit 0 is INVALID, the others follow enum ip_conntrack_info.
const (
	xtEstablished = 1 << 1
	xtRelated     = 1 << 2
	xtDNAT        = 1 << 7
)

// xtState matches states by iptables' conntrack match (struct xt_conntrack_mtinfo3).
func xtState(mask uint16) []nft.Expr {
	const (
		size       = 168
		matchFlags = 146
		stateMask  = 150
		matchState = 1
	)
	info := make([]byte, size)
	binary.NativeEndian.PutUint16(info[matchFlags:], matchState)
	binary.NativeEndian.PutUint16(info[stateMask:], mask)
	return []nft.Expr{nft.Match("conntrack", 3, info)}
}

// States and IPS_DST_NAT of nf_tables.
const (
	ctEstablished = 1 << 1
	ctRelated     = 1 << 2
	ctDNAT        = 1 << 5
)

// ctHas matches the same by nf_tables' own expressions. nft(8) makes them of
// iptables' matches when it loads what it has listed.
func ctHas(key, bits uint32) []nft.Expr {
	return []nft.Expr{nft.Ct(key, 0), nft.Bitwise(0, nft.Native32(bits), nft.Native32(0)), nft.Cmp(nft.Not, 0, nft.Native32(0))}
}

// delNative removes the network's rules of the prefixes, the reference's of the
// attachment's addresses, and the chains after the last rule. Without prefixes it
// removes all of the network's.
func (j *job) delNative(ctx context.Context, c *nft.Conn, prefixes []netip.Prefix) error {
	var cleared []native
	for _, n := range []native{{false}, {true}} {
		last := false
		err := c.Update(ctx, "withdraw network "+j.key.Network, func(tx *nft.Tx) (err error) {
			last, err = n.withdraw(c, tx, func(r nft.RuleInfo) bool { return j.stale(r, prefixes) })
			return err
		})
		if err != nil && !nft.Missing(err) {
			return err
		}
		if err == nil && last {
			cleared = append(cleared, n)
		}
	}
	if len(cleared) == 0 {
		return nil
	}
	errs := []error{j.delStages(ctx, c)}
	for _, n := range cleared {
		errs = append(errs, c.DeleteBare(ctx, n.table()))
	}
	return errors.Join(errs...)
}

// withdraw deletes stale rules; cleared means that the chains went with the last.
func (n native) withdraw(c *nft.Conn, tx *nft.Tx, stale func(nft.RuleInfo) bool) (cleared bool, err error) {
	rules, err := c.Rules(n.chain(cniForward))
	left := len(rules)
	for _, r := range rules {
		if stale(r) {
			tx.DeleteRule(n.chain(cniForward), r.Handle)
			left--
		}
	}
	if err != nil || tx.Empty() || left != 1 || rules[0].Comment != adminComment {
		return false, err
	}
	return true, n.dropChains(c, tx, rules[0].Target)
}

// stale reports whether a rule is to go.
func (j *job) stale(r nft.RuleInfo, prefixes []netip.Prefix) bool {
	if len(j.Prefixes) == 0 && len(j.ips) == 0 {
		return j.isCollected(r.Comment)
	}
	for _, p := range prefixes {
		if r.Comment == j.tag(p, "to") || r.Comment == j.tag(p, "from") || r.Comment == j.tag(p, "published") {
			return true
		}
	}
	return r.Comment == "" && r.Target == "" && slices.ContainsFunc(j.ips, func(ip netip.Addr) bool {
		return len(r.Values) == 1 && slices.Equal(r.Values[0], ip.AsSlice())
	})
}

// isCollected reports whether a rule is the network's, and of no container that is
// valid, or that a DEL is not for.
func (j *job) isCollected(comment string) bool {
	rest, ours := strings.CutPrefix(comment, j.ours())
	_, id, single := strings.Cut(rest, " of ")
	if j.told && single && id != journal.Cut(j.key.ContainerID, 32) {
		return false
	}
	return j.all && ours && !slices.ContainsFunc(j.living, func(a plugin.Attachment) bool {
		return single && id == journal.Cut(a.ContainerID, 32)
	})
}

// dropChains removes the chains, but for an admin's chain that has rules.
func (n native) dropChains(c *nft.Conn, tx *nft.Tx, admin string) error {
	if err := c.DropChain(tx, n.chain(cniForward), n.chain(forward), nil); err != nil {
		return err
	}
	rules, err := c.Rules(n.chain(admin))
	if err == nil && len(rules) == 0 && admin != "" {
		tx.DeleteChain(n.chain(admin))
	}
	return err
}

func (n native) check(_ context.Context, j *job, c *nft.Conn) error {
	entries, err := c.Rules(n.chain(forward))
	if err != nil {
		return err
	}
	rules, err := c.Rules(n.chain(cniForward))
	if err != nil {
		return err
	}
	if !enters(entries, cniForward) || !enters(rules, j.AdminChain) {
		return cnierr.Check("rules that lead to chains %s and %s are missing in %s (netcleat reconcile restores them)", cniForward, j.AdminChain, n.table())
	}
	for _, p := range j.pick(n.v6) {
		for i, want := range n.rules(j, p, xtStates) {
			if !n.has(rules, j, p, i) {
				return cnierr.Check("%s is missing in %s (netcleat reconcile restores it)", want, n.table())
			}
		}
	}
	return nil
}
