package masq

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

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

// chain holds the rules of a's network.
func (a Attachment) chain() nft.Chain {
	return nft.Chain{Table: table, Name: "net_" + iptables.Hash(16, a.Network)}
}

// exempts holds the network's addresses that are not masqueraded.
func (a Attachment) exempts(v6 bool) nft.Set {
	s := nft.Set{Table: table, Name: "exempt4_" + iptables.Hash(16, a.Network), Key: []nft.Type{nft.TypeIPv4}}
	if v6 {
		s.Name, s.Key = "exempt6_"+iptables.Hash(16, a.Network), []nft.Type{nft.TypeIPv6}
	}
	return s
}

func (a Attachment) sets() []nft.Set { return []nft.Set{a.exempts(false), a.exempts(true)} }

// source is what is masqueraded for one of a's addresses.
func (a Attachment) source(p netip.Prefix) netip.Prefix {
	if a.Single {
		return netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
	}
	return p.Masked()
}

// tag begins the comment of the rule for one of a's addresses, by which it is
// found. That of a single address is the attachment's own.
func (a Attachment) tag(p netip.Prefix) string {
	tag := a.source(p).String() + " of "
	if a.Single {
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

// made reports whether all of a's rules are there.
func (a Attachment) made(c *nft.Conn) (bool, error) {
	have, err := c.Ruleset(table)
	return err == nil && a.lacks(have) == nil, err
}

// addRules adds what is missing for a's prefixes.
func (a Attachment) addRules(c *nft.Conn, tx *nft.Tx) error {
	have, err := c.Ruleset(table)
	if err != nil {
		return err
	}
	lacks := a.lacks(have)
	if lacks == nil {
		return nil
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
	return a.exemptAll(c, tx, off, a.Addrs)
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

// exemptAll exempts the records' addresses in the prefixes.
func (a Attachment) exemptAll(c *nft.Conn, tx *nft.Tx, off []journal.Record, prefixes []netip.Prefix) error {
	for _, r := range off {
		other := a
		other.ContainerID = r.ContainerID
		if err := other.exempt(c, tx, within(r.IPs, prefixes)); err != nil {
			return err
		}
	}
	return nil
}

func hasPrefix(list []netip.Prefix, p netip.Prefix) bool {
	for _, q := range list {
		if q.Masked() == p.Masked() {
			return true
		}
	}
	return false
}

func within(ips, nets []netip.Prefix) (some []netip.Prefix) {
	for _, ip := range ips {
		if hasPrefix(nets, ip) {
			some = append(some, ip)
		}
	}
	return some
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

// exempt adds addresses to the sets of the network's exceptions, and makes those
// where there are none yet.
func (a Attachment) exempt(c *nft.Conn, tx *nft.Tx, addrs []netip.Prefix) error {
	have, err := c.Ruleset(table)
	if err != nil {
		return err
	}
	for _, p := range addrs {
		exempt, err := a.isExempt(c, have, p)
		if err != nil {
			return err
		}
		if exempt {
			continue
		}
		set := a.exempts(p.Addr().Is6())
		tx.EnsureSet(set)
		tx.EnsureFirst(have, a.exception(set))
		tx.Add(set, nft.Elem{Key: p.Addr().AsSlice(), Comment: journal.Cut(a.ContainerID, 120)})
	}
	return nil
}

// isExempt reports whether the address is in the network's exceptions, and a rule
// looks there.
func (a Attachment) isExempt(c *nft.Conn, have nft.Ruleset, p netip.Prefix) (bool, error) {
	set := a.exempts(p.Addr().Is6())
	if have.Lacks(a.exception(set)) != nil {
		return false, nil
	}
	found, err := c.Find(set, p.Addr().AsSlice())
	return len(found) > 0 && found[0].Comment == journal.Cut(a.ContainerID, 120), err
}

// exception is the rule that looks for exempt addresses.
func (a Attachment) exception(set nft.Set) nft.Rule {
	v6 := set.Name == a.exempts(true).Name
	e := nft.Join(nft.Proto(v6), []nft.Expr{nft.LoadAddr(v6, nft.Source, 0), nft.InSet(set.Name, 0), nft.Decide(nft.Return)})
	return nft.Rule{Chain: a.chain(), Exprs: e, Comment: "attached with ipMasq off"}
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
		return errors.Join(a.unexempt(c, tx), a.delSources(c, tx))
	default:
		return a.delNetwork(c, tx)
	}
}

// unexempt takes a's addresses from the exceptions.
func (a Attachment) unexempt(c *nft.Conn, tx *nft.Tx) error {
	for _, p := range a.Addrs {
		set := a.exempts(p.Addr().Is6())
		found, err := c.Find(set, p.Addr().AsSlice())
		if err != nil {
			return err
		}
		for _, e := range found {
			if e.Comment == journal.Cut(a.ContainerID, 120) {
				tx.Remove(set, nft.Elem{Key: e.Key})
			}
		}
	}
	return nil
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

// sharesPrefix reports whether the rule of p is another attachment's, too.
func (a Attachment) sharesPrefix(p netip.Prefix) (bool, error) {
	if a.Single {
		return false, nil
	}
	some, err := a.Journal.Any(a.Network, masquerades, func(r journal.Record) bool {
		c := confOf(r)
		return !a.owns(r) && c.IPMasq && !c.single && hasPrefix(r.IPs, p)
	})
	if some || err != nil || p.IsSingleIP() {
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
	for _, set := range a.sets() {
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
