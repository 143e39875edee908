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
	return ipam.DelAfter(ctx, c, func() error { return link.Remove(p, c, kind) })
}
