// Package ptp is the CNI plugin that joins a sandbox to the host by a veth pair
// over which everything is routed.
package ptp

import (
	"context"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Plugin is the plugin for the table.
var Plugin = plugin.Spec[config]{
	Name:      "ptp",
	Parse:     parse,
	HasRecord: func(config) bool { return true },
	AddIn:     attach,
	DelIn:     detach,
	Check:     check,
	Status:    func(ctx context.Context, c *plugin.Call, _ config) error { return ipam.Status(ctx, c) },
	GC:        collect,

	Restore: masq.Reconcile,
}
