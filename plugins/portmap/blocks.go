package portmap

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/scope"
)

// findBlocks finds what the rules for masquerading have for the targets: the prefix
// around each that is its network's alone, and not its neighbours' on the same subnet,
// or the target itself.
func (j *job) findBlocks() {
	network := scope.OfAttachment(j.dir, j.key)
	j.Blocks = nil
	for _, t := range j.Targets {
		j.Blocks = append(j.Blocks, network.Block(t))
	}
}

// block returns what the rules have for a target. Records of earlier versions say
// none.
func (j *job) block(target netip.Prefix) netip.Prefix {
	if i := slices.Index(j.Targets, target); i >= 0 && i < len(j.Blocks) {
		return j.Blocks[i]
	}
	return target.Masked()
}

// tail ends the comments of a single address's rules, which are the container's own.
func (j *job) tail(block netip.Prefix) string {
	if !block.IsSingleIP() {
		return ""
	}
	return of + journal.Cut(j.key.ContainerID, 32)
}

const of = " of "

// delSingles deletes the rules of single addresses that go with the attachment, or
// with those that a GC names.
func (j *job) delSingles(c *nft.Conn, tx *nft.Tx, l layout) error {
	if j.gone == nil && !slices.ContainsFunc(j.Blocks, netip.Prefix.IsSingleIP) {
		return nil
	}
	rules, err := c.Rules(l.network(j.key.Network))
	for _, r := range rules {
		if j.isGoing(r.Comment) {
			tx.DeleteRule(l.network(j.key.Network), r.Handle)
		}
	}
	return err
}

// isGoing reports whether a rule with the comment is one of them: "neighbours to
// 10.1.0.2/32 of c1".
func (j *job) isGoing(comment string) bool {
	to, id, single := strings.Cut(comment, of)
	if !single || j.gone != nil {
		return single && j.gone(id)
	}
	p, err := netip.ParsePrefix(to[strings.LastIndexByte(to, ' ')+1:])
	return err == nil && id == journal.Cut(j.key.ContainerID, 32) && slices.ContainsFunc(j.Targets, func(t netip.Prefix) bool { return t.Addr() == p.Addr() })
}
