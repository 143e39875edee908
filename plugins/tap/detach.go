package tap

import (
	"context"
	"errors"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// detach answers DEL: the tap, and when nothing can answer at the addresses any
// more, the lease.
func detach(ctx context.Context, c *plugin.Call, conf config) (err error) {
	p, err := c.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	remove := func() error { return link.Remove(p, c, kind) }
	if !conf.layer3 {
		return remove()
	}
	return release(ctx, c, remove)
}

// release removes the link and gives the addresses back, in the order in which
// none is handed out again that still answers.
func release(ctx context.Context, c *plugin.Call, remove func() error) error {
	if err := ipam.Release(ctx, c); err != nil {
		c.Note("%v (the link goes all the same)", err)
	}
	if err := remove(); err != nil {
		return err
	}
	return ipam.Del(ctx, c)
}
