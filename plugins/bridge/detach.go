package bridge

import (
	"context"
	"errors"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/veth"
)

// detach answers DEL: the pair, the rules, and when nothing can answer at the
// addresses any more, the lease.
func detach(ctx context.Context, c *plugin.Call, conf config) (err error) {
	p, err := c.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()

	if err := veth.Remove(p, c); err != nil {
		return err
	}
	if !conf.layer3 {
		return nil
	}
	return ipam.Del(ctx, c)
}

// collect removes what of the network is not valid and has no record.
func collect(ctx context.Context, c *plugin.Call, conf config) error {
	if !conf.layer3 {
		return nil
	}
	return ipam.GC(ctx, c)
}
