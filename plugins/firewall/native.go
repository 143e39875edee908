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
	err := c.Update(ctx, what, func(tx *nft.Tx) error { return n.build(j, c, tx, xtState()) })
	if errors.Is(err, unix.ENOENT) {
		// Without nft_compat there is no iptables-nft to read the rules either.
		err = c.Update(ctx, what, func(tx *nft.Tx) error { return n.build(j, c, tx, ctState()) })
	}
	return err
}

// inbound is a rule's condition on what may come in, and the word for its tag.
type inbound struct {
	which string
	exprs []nft.Expr
}

func (n native) build(j *job, c *nft.Conn, tx *nft.Tx, in []inbound) error {
	rules, err := c.Rules(n.chain(cniForward))
	if err != nil {
		return err
	}
	if err := n.ensureChains(j, c, tx, rules); err != nil {
		return err
	}
	for _, p := range j.pick(n.v6) {
		var list []nft.Rule
		for _, i := range in {
			list = append(list, nft.Rule{Exprs: nft.Join(nft.Addr(nft.Destination, nft.Equal, p), i.exprs), Comment: j.tag(p, i.which)})
		}
		for _, r := range append(list, nft.Rule{Exprs: nft.Addr(nft.Source, nft.Equal, p), Comment: j.tag(p, "from")}) {
			if commented(rules, r.Comment) {
				continue
			}
			r.Chain = n.chain(cniForward)
			r.Exprs = append(r.Exprs, nft.Counter(), nft.Decide(nft.Accept))
			tx.Append(r)
		}
	}
	return nil
}

func commented(rules []nft.RuleInfo, comment string) bool {
	return slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return r.Comment == comment })
}

func enters(rules []nft.RuleInfo, chain string) bool {
	return slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return r.Target == chain })
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
		tx.Insert(nft.Rule{Chain: n.chain(forward), Exprs: []nft.Expr{nft.Counter(), nft.Jump(cniForward)}, Comment: rulesComment})
	}
	if !enters(rules, j.AdminChain) {
		tx.EnsureChain(n.chain(cniForward))
		tx.EnsureChain(n.chain(j.AdminChain))
		tx.Insert(nft.Rule{Chain: n.chain(cniForward), Exprs: []nft.Expr{nft.Counter(), nft.Jump(j.AdminChain)}, Comment: adminComment})
	}
	return nil
}

// States of xt_conntrack: bit 0 is INVALID, the others follow enum ip_conntrack_info.
const (
	xtEstablished = 1 << 1
	xtRelated     = 1 << 2
	xtDNAT        = 1 << 7
)

// xtState matches answers, and connections to published ports, by iptables'
// conntrack match (struct xt_conntrack_mtinfo3).
func xtState() []inbound {
	const (
		size       = 168
		matchFlags = 146
		stateMask  = 150
		matchState = 1
	)
	info := make([]byte, size)
	binary.NativeEndian.PutUint16(info[matchFlags:], matchState)
	binary.NativeEndian.PutUint16(info[stateMask:], xtEstablished|xtRelated|xtDNAT)
	return []inbound{{"to", []nft.Expr{nft.Match("conntrack", 3, info)}}}
}

// ctState matches the same by nf_tables' own expressions.
func ctState() []inbound {
	const established, related, dnat = 1 << 1, 1 << 2, 1 << 5 // IPS_DST_NAT
	has := func(key, bits uint32) []nft.Expr {
		return []nft.Expr{nft.Ct(key, 0), nft.Bitwise(0, nft.Native32(bits), nft.Native32(0)), nft.Cmp(nft.Not, 0, nft.Native32(0))}
	}
	return []inbound{{"to", has(unix.NFT_CT_STATE, established|related)}, {"published", has(unix.NFT_CT_STATUS, dnat)}}
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
// valid.
func (j *job) isCollected(comment string) bool {
	return j.key.ContainerID == "" && strings.HasPrefix(comment, j.ours()) && !slices.ContainsFunc(j.living, func(a plugin.Attachment) bool {
		return strings.HasSuffix(comment, " of "+journal.Cut(a.ContainerID, 32))
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
	for _, p := range j.pick(n.v6) {
		if !enters(entries, cniForward) || !commented(rules, j.tag(p, "to")) || !commented(rules, j.tag(p, "from")) {
			return cnierr.Check("rules that let %s through are missing in %s (netcleat reconcile restores them)", p, n.table())
		}
	}
	return nil
}
