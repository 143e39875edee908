package portmap

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// check compares the kernel's rules with what ADD made.
func check(ctx context.Context, c *plugin.Call, conf config) error {
	if err := c.Chained("Required prevResult missing"); err != nil {
		return err
	}
	if len(conf.Mappings) == 0 {
		return nil
	}
	j, err := recorded(c)
	if err != nil {
		return err
	}
	if len(j.Targets) == 0 {
		return nil // attached by the reference, or without an address
	}
	return j.check(ctx)
}

func (j *job) check(ctx context.Context) (err error) {
	c, err := nft.Dial(nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := j.checkLocalnet(); err != nil {
		return err
	}
	if j.Backend == iptables.IPTables {
		return j.checkChains(ctx)
	}
	return j.each(func(g group, target netip.Prefix) error {
		have, err := c.Ruleset(g.table)
		if err != nil {
			return err
		}
		missing, err := j.lacks(have, g, target)
		if err != nil {
			return err
		}
		if missing != nil {
			return cnierr.Check("published ports: %s is missing in %s (netcleat reconcile restores it)", missing, g.table)
		}
		for _, p := range j.elements(g, target.Addr()) {
			if err := j.checkElements(c, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkElements looks for each element with this container as its target or, as
// its other networks may have come first, as its owner.
func (j *job) checkElements(c *nft.Conn, p placed) error {
	elems := slices.DeleteFunc(slices.Clone(p.elems), func(e nft.Elem) bool { return e.End })
	var keys [][]byte
	for _, e := range elems {
		keys = append(keys, e.Key)
	}
	found, err := c.Find(p.set, keys...)
	if err != nil {
		return err
	}
	mine := 0
	for _, e := range found {
		i := slices.IndexFunc(elems, func(w nft.Elem) bool { return bytes.Equal(w.Key, e.Key) })
		asMade := e.Comment != j.owner() || i >= 0 && bytes.Equal(e.Data, elems[i].Data)
		if !e.Expires && asMade && ownerOf(e.Comment).is(j.key.ContainerID) {
			mine++
		}
	}
	if mine < len(elems) {
		return cnierr.Check("published ports: %d of %d are missing in map %s of %s (netcleat reconcile restores them)", len(elems)-mine, len(elems), p.set.Name, p.set.Table)
	}
	return nil
}

// checkChains compares each rule that iptables made for the attachment, and those
// that it shares.
func (j *job) checkChains(ctx context.Context) error {
	return j.eachChain(func(tool iptables.Tool, target netip.Prefix) error {
		held, err := j.holds(ctx, tool, target)
		if err == nil && !held {
			return cnierr.Check("published ports: rules of chain %s, or what leads to it, are missing (netcleat reconcile restores them)", j.chainName("DN"))
		}
		return err
	})
}
