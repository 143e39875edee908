package tap

import (
	"context"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// detach answers DEL: the tap, and when nothing can answer at the addresses any
// more, the lease.
func detach(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) (err error) {
	return ipam.DelAfter(ctx, c, func() error { return link.Remove(p, c, kind) })
}
