// Package sbr is the chained CNI plugin for source based routing: what leaves
// with an address of the interface takes the interface's own routes, which are
// moved to a table of their own.
package sbr

import "github.com/netcleat/netcleat/pkg/plugin"

// Plugin is the sbr plugin.
var Plugin = plugin.Spec[config]{
	Name: "sbr", Role: plugin.Chained, Parse: parse, HasRecord: func(config) bool { return true },
	Add: attach, DelIn: detach, Check: check, Restore: Reconcile,
}
