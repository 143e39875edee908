package bridge

import (
	"context"
	"errors"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/spoof"
	"github.com/netcleat/netcleat/pkg/veth"
)

// detach answers DEL: the pair, the rules, and when nothing can answer at the
// addresses any more, the lease.
func detach(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) (err error) {
	if err := ipam.Release(ctx, c); err != nil {
		c.Note("%v", err)
	}
	removed := veth.Remove(p, c)
	link.AnnounceOthers(p)
	a := masq.Of(c, conf.IPMasqBackend)
	removed = errors.Join(removed, delWayBack(p, &conf, a.Addrs), delNeighbours(p, &conf, a.Addrs))
	rules := errors.Join(masq.Del(ctx, a), spoof.Del(ctx, c.Gate, port(c)))
	if removed != nil || !conf.layer3 {
		return errors.Join(removed, rules)
	}
	return errors.Join(rules, ipam.Del(ctx, c))
}

// collect removes what of the network is not valid and has no record.
func collect(ctx context.Context, c *plugin.Call, conf config) error {
	rules := masq.GC(ctx, masq.Of(c, conf.IPMasqBackend), c.ValidAttachments)
	if !conf.layer3 {
		return rules
	}
	return errors.Join(rules, ipam.GC(ctx, c))
}
