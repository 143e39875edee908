package masq

import (
	"context"
	"slices"

	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/nft"
)

// backend is how an attachment is masqueraded: by rules that its network shares in
// nftables (inRules), or by a chain of its own in iptables (inChains). What is to be
// removed may be of either: Del and GC look at both.
type backend interface {
	add(ctx context.Context, c *nft.Conn) error
	// compare is a cnierr.Check error where something is missing.
	compare(ctx context.Context, c *nft.Conn) error
	// restore makes what is missing, and leaves what is there.
	restore(ctx context.Context, c *nft.Conn) error
}

// backend is the configured one, or the host's. Where iptables' POSTROUTING has
// rules that keep packets from what comes after them, such as from masquerading
// what goes through a tunnel, that is iptables: they do not bind other chains.
func (a Attachment) backend(c *nft.Conn) backend {
	b, tool := a.configured(), iptables.Tool{}
	if b == "" {
		b, tool = iptables.Default(c, "nat")
		if b == iptables.NFTables && tool.Translated() && a.hasExceptions(c) {
			b = iptables.IPTables
		}
	}
	if b == iptables.IPTables {
		return inChains{a, tool}
	}
	return inRules{a}
}

// hasExceptions reports whether iptables' POSTROUTING has rules that others than
// this suite and the reference, which only jump from there, have made exceptions by.
func (a Attachment) hasExceptions(c *nft.Conn) bool {
	for _, t := range natTables {
		rules, err := c.Rules(nft.Chain{Table: t, Name: "POSTROUTING"})
		if err == nil && slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return r.Ends }) {
			return true
		}
	}
	return false
}

// hasChains reports whether iptables masquerades the attachment, which was chosen
// for exceptions (hasExceptions) that have gone since.
func (a Attachment) hasChains(ctx context.Context) bool {
	tool := iptables.Tool{}
	return a.configured() == "" && tool.Translated() && inChains{a, tool}.compare(ctx, nil) == nil
}
