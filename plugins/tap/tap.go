// Package tap is the CNI plugin that makes a tap interface in a sandbox, for a
// virtual machine that runs there.
package tap

import (
	"context"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Plugin is the plugin for the table.
var Plugin = plugin.Spec[config]{
	Name:      "tap",
	Parse:     parse,
	HasRecord: func(c config) bool { return c.within == nil },
	Add:       attach,
	DelIn:     detach,
	Check:     check,
	Status:    status,
	GC:        collect,
}

// status answers STATUS: whether the kernel makes taps, and the IPAM plugin
// could serve an ADD.
func status(ctx context.Context, c *plugin.Call, conf config) error {
	if err := available(); err != nil {
		return &cnierr.Error{Code: cnierr.NotAvailable, Err: err}
	}
	if !conf.layer3 {
		return nil
	}
	return ipam.Status(ctx, c)
}

// collect answers GC for what has no record: the taps have, so that leaves the
// leases.
func collect(ctx context.Context, c *plugin.Call, conf config) error {
	if !conf.layer3 {
		return nil
	}
	return ipam.GC(ctx, c)
}
