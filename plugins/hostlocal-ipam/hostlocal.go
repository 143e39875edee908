// Package hostlocal is the IPAM plugin host-local: it hands out addresses of
// ranges that belong to this host, and keeps them in files.
package hostlocal

import (
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/ranges"
)

// Plugin is host-local. It keeps no record in the journal: its leases are one.
var Plugin = plugin.Spec[ranges.Config]{
	Name:   "host-local",
	Role:   plugin.IPAM,
	Parse:  parse,
	Add:    ranges.Add,
	Del:    ranges.Del,
	Check:  ranges.Check,
	Status: ranges.Status,
	GC:     ranges.GC,
}

func parse(c *plugin.Call) (ranges.Config, error) {
	if c.Removing() {
		return ranges.ForRemoval(c), nil
	}
	var n ranges.Document
	if err := c.Decode(&n); err != nil {
		return ranges.ForRemoval(c), err
	}
	return n.Config(c)
}
