package masq

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
)

// The reference's table and chains, which its rules for single containers and
// ours for networks share.
var (
	table       = nft.Table{Family: nft.Inet, Name: "cni_plugins_masquerade"}
	checks      = nft.Chain{Table: table, Name: "masq_checks"}
	postrouting = nft.Chain{Table: table, Name: "postrouting", Hook: &nft.Hook{Type: "nat", Num: unix.NF_INET_POST_ROUTING, Priority: 100}}
)

// hash ends the names of what the table has of a's network.
func (a Attachment) hash() string { return iptables.Hash(16, a.Network) }

// networkChain begins the names of the networks' chains.
const networkChain = "net_"

// chain holds the rules of a's network.
func (a Attachment) chain() nft.Chain { return chainOf(a.hash()) }

func chainOf(hash string) nft.Chain { return nft.Chain{Table: table, Name: networkChain + hash} }

// source is what is masqueraded for one of a's addresses.
func (a Attachment) source(p netip.Prefix) netip.Prefix { return a.Scope.Block(p) }

// tag begins the comment of the rule for one of a's addresses, by which it is
// found. That of a single address is the attachment's own.
func (a Attachment) tag(p netip.Prefix) string {
	source := a.source(p)
	tag := source.String() + " of "
	if source.IsSingleIP() {
		tag += journal.Cut(a.ContainerID, 32) + ", "
	}
	return tag
}

// lacks returns the first rule that a needs and that is not there, or nil.
func (a Attachment) lacks(have nft.Ruleset) *nft.Rule {
	for _, r := range append(a.rules(), a.entry()) { // in whatever order
		if lacks := have.Lacks(r); lacks != nil {
			return lacks
		}
	}
	return have.Lacks(shared()...)
}

// made reports whether all of a's rules are there, and nothing exempts it from them.
func (a Attachment) made(c *nft.Conn) (bool, error) {
	have, err := c.Ruleset(table)
	if err != nil || a.lacks(have) != nil {
		return false, err
	}
	stale, err := a.staleExemptions(c, have)
	return err == nil && len(stale) == 0, err
}

// inRules is the backend of nftables: the rules of a prefix, which the attachments
// of a network share.
type inRules struct{ Attachment }

func (a inRules) add(ctx context.Context, c *nft.Conn) error {
	if made, err := a.made(c); err != nil || made {
		return err
	}
	if err := c.Update(ctx, "masquerade "+a.Network, func(tx *nft.Tx) error { return a.addRules(c, tx) }); err != nil {
		return err
	}
	return a.exemptLate(ctx, c)
}

func (a inRules) restore(ctx context.Context, c *nft.Conn) error { return a.add(ctx, c) }

func (a inRules) compare(ctx context.Context, c *nft.Conn) error {
	have, err := c.Ruleset(table)
	if err != nil {
		return err
	}
	if lacks := a.lacks(have); lacks != nil && !a.hasChains(ctx) {
		return cnierr.Check("masquerading of %v: %s is missing in %s (netcleat reconcile restores it)", a.Addrs, lacks, table)
	}
	stale, err := a.staleExemptions(c, have)
	if len(stale) > 0 {
		return cnierr.Check("masquerading of %v: %s exempts it in %s (netcleat reconcile restores it)", a.Addrs, stale[0].set.Name, table)
	}
	return err
}

// addRules adds what is missing for a's prefixes.
func (a Attachment) addRules(c *nft.Conn, tx *nft.Tx) error {
	have, err := c.Ruleset(table)
	if err != nil {
		return err
	}
	if err := a.dropStale(c, tx, have); err != nil || a.lacks(have) == nil {
		return err
	}
	ensureTable(have, tx)
	tx.EnsureChain(a.chain())
	tx.Ensure(have, a.entry())
	for _, r := range a.rules() {
		tx.Ensure(have, r)
	}
	off, err := a.unmasqueraded()
	if err != nil {
		return err
	}
	return a.exemptAll(c, tx, have, off)
}

// entry is the rule that leads to the network's chain.
func (a Attachment) entry() nft.Rule {
	return nft.Rule{Chain: checks, Exprs: []nft.Expr{nft.Jump(a.chain().Name)}, Comment: journal.Cut("net: "+a.Network, 120)}
}

// rules masquerade a's addresses, each source once.
func (a Attachment) rules() (list []nft.Rule) {
	for i, p := range a.Addrs {
		if !slices.ContainsFunc(a.Addrs[:i], func(q netip.Prefix) bool { return a.source(q) == a.source(p) }) {
			list = append(list, a.rule(p))
		}
	}
	return list
}

// rule masquerades what is sent from an address's source to other prefixes.
func (a Attachment) rule(p netip.Prefix) nft.Rule {
	return nft.Rule{
		Chain:   a.chain(),
		Exprs:   nft.Join(nft.Proto(p.Addr().Is6()), nft.Addr(nft.Source, nft.Equal, a.source(p)), nft.Addr(nft.Destination, nft.Not, p), []nft.Expr{nft.Masquerade()}),
		Comment: journal.Cut(a.tag(p)+"net: "+a.Network, 120),
	}
}

// ensureTable adds the shared part.
func ensureTable(have nft.Ruleset, tx *nft.Tx) {
	tx.EnsureTable(table, "Masquerading for CNI plugins")
	tx.EnsureChain(checks)
	tx.EnsureChain(postrouting)
	tx.Ensure(have, shared()...)
}

// shared returns the rules that lead to the networks' chains.
func shared() (list []nft.Rule) {
	for _, multicast := range []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4), netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8),
	} {
		e := nft.Join(nft.Proto(multicast.Addr().Is6()), nft.Addr(nft.Destination, nft.Equal, multicast), []nft.Expr{nft.Decide(nft.Return)})
		list = append(list, nft.Rule{Chain: postrouting, Exprs: e})
	}
	return append(list, nft.Rule{Chain: postrouting, Exprs: []nft.Expr{nft.Goto(checks.Name)}})
}

func jumps(rules []nft.RuleInfo, chain string) bool {
	for _, r := range rules {
		if r.Target == chain {
			return true
		}
	}
	return false
}

// delRules removes what nf_tables has of the attachment: rules of the reference
// or of iptables-nft, its exemption, and the network's rules after its last.
func (a Attachment) delRules(ctx context.Context, c *nft.Conn) error {
	var dropped []nft.Table
	err := c.Update(ctx, "end masquerading of "+a.ContainerID, func(tx *nft.Tx) (err error) {
		if dropped, err = a.delTranslated(c, tx); err != nil {
			return err
		}
		own := instance(a.Network, a.ContainerID, a.IfName)
		return a.sweep(c, tx, func(r nft.RuleInfo) bool { return strings.HasPrefix(r.Comment, own) })
	})
	for _, t := range dropped {
		err = errors.Join(err, c.DeleteBare(ctx, t))
	}
	return ignoreMissing(err)
}

// instance begins the comment of the reference's rules for an attachment.
func instance(network, containerID, ifName string) string {
	return iptables.Hash(16, network) + "-" + iptables.Hash(16, ifName+":"+containerID)
}

// sweep deletes the reference's rules that are stale, a's exemptions, and all of
// the network's rules where no other attachment needs them.
func (a Attachment) sweep(c *nft.Conn, tx *nft.Tx, stale func(nft.RuleInfo) bool) error {
	rules, err := c.Rules(checks)
	if err != nil || len(rules) == 0 {
		return err
	}
	needed := false
	if jumps(rules, a.chain().Name) { // to ask costs a look at all records of a network that is not masqueraded
		if needed, err = a.needed(); err != nil {
			return err
		}
	}
	left := 0
	for _, r := range rules {
		if stale(r) || !needed && r.Target == a.chain().Name {
			tx.DeleteRule(checks, r.Handle)
		} else {
			left++
		}
	}
	switch {
	case left == 0:
		tx.DeleteTable(table)
		return nil
	case needed:
		err = errors.Join(a.unexempt(c, tx, a.hash()), a.delSources(c, tx))
	default:
		err = a.delNetwork(c, tx)
	}
	return errors.Join(err, a.unexemptElsewhere(c, tx, rules))
}

// delSources deletes the rules of a's single addresses, or of its prefixes that no
// other attachment of the network is in: where each container has one of its own.
// One that has no address yet makes the rule again.
func (a Attachment) delSources(c *nft.Conn, tx *nft.Tx) error {
	for _, p := range a.Addrs {
		needed, err := a.sharesPrefix(p)
		if err != nil {
			return err
		}
		if needed {
			continue
		}
		rules, err := c.Rules(a.chain())
		if err != nil {
			return err
		}
		for _, r := range rules {
			if strings.HasPrefix(r.Comment, a.tag(p)) {
				tx.DeleteRule(a.chain(), r.Handle)
			}
		}
	}
	return nil
}

// sharesPrefix reports whether the rule of p is another attachment's, too; that of a
// single address never is.
func (a Attachment) sharesPrefix(p netip.Prefix) (bool, error) {
	source := a.source(p)
	if source.IsSingleIP() {
		return false, nil
	}
	some, err := a.Journal.Any(a.Network, masquerades, func(r journal.Record) bool {
		c := confOf(r)
		if a.owns(r) || !c.IPMasq {
			return false
		}
		network := c.scopeOf(r)
		return slices.ContainsFunc(r.IPs, func(q netip.Prefix) bool { return network.Block(q) == source })
	})
	if some || err != nil {
		return some, err
	}
	lost, err := a.unrecorded()
	return len(lost) > 0, err
}

// delNetwork deletes the network's chain and sets.
func (a Attachment) delNetwork(c *nft.Conn, tx *nft.Tx) error {
	info, err := c.GetChain(a.chain())
	if err != nil || info == nil {
		return err
	}
	tx.FlushChain(a.chain())
	tx.DeleteChain(a.chain())
	for _, set := range []nft.Set{exemptsOf(a.hash(), false), exemptsOf(a.hash(), true)} {
		there, err := c.HasSet(set)
		if err != nil {
			return err
		}
		if there {
			tx.DeleteSet(set)
		}
	}
	return nil
}

// gcRules removes the reference's rules for the network's attachments that are
// not valid.
func (a Attachment) gcRules(ctx context.Context, c *nft.Conn) error {
	net, alive := iptables.Hash(16, a.Network)+"-", map[string]bool{}
	for _, v := range a.living {
		alive[instance(a.Network, v.ContainerID, v.IfName)] = true
	}
	err := c.Update(ctx, "collect masquerading of "+a.Network, func(tx *nft.Tx) error {
		if err := a.gcTranslated(c, tx); err != nil {
			return err
		}
		return a.sweep(c, tx, func(r nft.RuleInfo) bool {
			return strings.HasPrefix(r.Comment, net) && !alive[r.Comment[:min(len(r.Comment), len(net)+16)]]
		})
	})
	return ignoreMissing(err)
}
