package ptp

import (
	"context"
	"errors"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/veth"
)

// detach answers DEL: the pair, the rules, and when nothing can answer at the
// addresses any more, the lease.
func detach(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) (err error) {
	var rules error
	gone := ipam.DelAfter(ctx, c, func() error {
		err := veth.Remove(p, c)
		rules = masq.Del(ctx, masq.Of(c, conf.IPMasqBackend))
		return err
	})
	return errors.Join(gone, rules)
}

// collect removes what of the network is not valid and has no record.
func collect(ctx context.Context, c *plugin.Call, conf config) error {
	rules := masq.GC(ctx, masq.Of(c, conf.IPMasqBackend), c.ValidAttachments)
	if c.Conf.IPAM.Type == "" {
		return rules
	}
	return errors.Join(rules, ipam.GC(ctx, c))
}
