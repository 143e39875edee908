// Package bridge is the CNI plugin that joins a sandbox to a bridge of the host
// by a veth pair.
package bridge

import (
	"context"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Plugin is the plugin for the table.
var Plugin = plugin.Spec[config]{
	Name:      "bridge",
	Parse:     parse,
	HasRecord: func(config) bool { return true },
	AddIn:     attach,
	DelIn:     detach,
	Check:     check,
	Status:    status,
	GC:        collect,

	Restore: Reconcile,
}

// status says whether an ADD could work: the IPAM plugin knows its part, and a
// bridge can be made whenever there is none.
func status(ctx context.Context, c *plugin.Call, conf config) error {
	if !conf.layer3 {
		return nil
	}
	return ipam.Status(ctx, c)
}
