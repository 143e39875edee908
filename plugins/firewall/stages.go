package firewall

import (
	"context"
	"errors"

	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/nft"
)

// The reference's chains of ingressPolicy, which it never removes: FORWARD enters
// the first one, and that the second. They name bridges, not containers, but each
// container that they are for has rules in CNI-FORWARD, too: when nobody has any
// more, in either family, they go.
const (
	stage1 = "CNI-ISOLATION-STAGE-1"
	stage2 = "CNI-ISOLATION-STAGE-2"
)

// delStages removes them from iptables-nft's tables. Where firewalld runs they
// stay: with it the reference's containers have no rules in CNI-FORWARD.
func (j *job) delStages(ctx context.Context, c *nft.Conn) error {
	if (&job{}).usesFirewalld(c) {
		return nil
	}
	var dropped []native
	err := c.Update(ctx, "remove the reference's isolation", func(tx *nft.Tx) error {
		dropped = nil
		families, err := emptied(c)
		if err != nil {
			return err
		}
		for _, n := range families {
			there, err := n.dropStages(c, tx)
			if err != nil {
				return err
			}
			if there {
				dropped = append(dropped, n)
			}
		}
		return nil
	})
	for _, n := range dropped {
		err = errors.Join(err, c.DeleteBare(ctx, n.table()))
	}
	return err
}

// emptied returns the families that the kernel has, or none where one of them has
// CNI-FORWARD.
func emptied(c *nft.Conn) (families []native, err error) {
	for _, n := range []native{{false}, {true}} {
		info, err := c.GetChain(n.chain(cniForward))
		switch {
		case info != nil:
			return nil, nil
		case err == nil:
			families = append(families, n)
		case !nft.Missing(err):
			return nil, err
		}
	}
	return families, nil
}

func (n native) dropStages(c *nft.Conn, tx *nft.Tx) (there bool, err error) {
	parents := map[string]string{stage2: stage1, stage1: forward}
	for _, chain := range []string{stage2, stage1} { // what enters the second goes before the first is flushed
		info, err := c.GetChain(n.chain(chain))
		if err != nil {
			return false, err
		}
		if info == nil {
			continue
		}
		there = true
		if err := c.DropChain(tx, n.chain(chain), n.chain(parents[chain]), nil); err != nil {
			return false, err
		}
	}
	return there, nil
}

// delOldStages removes them from the kernel's old tables.
func (j *job) delOldStages(ctx context.Context, tools []iptables.Tool) error {
	for _, tool := range tools {
		saved, err := tool.Save(ctx, "filter")
		if err != nil || iptables.HasChain(iptables.Parse(saved), cniForward) {
			return err
		}
	}
	var errs []error
	for _, tool := range tools {
		errs = append(errs, tool.Change(ctx, j.gate, "filter", func(lines []iptables.Line) []string {
			return append(iptables.DropChain(lines, stage2, nil), iptables.DropChain(lines, stage1, nil)...)
		}))
	}
	return errors.Join(errs...)
}
