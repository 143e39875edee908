// Package vrf is the chained CNI plugin that puts the sandbox's interface into a
// VRF: a device with a routing table of its own.
package vrf

import "github.com/netcleat/netcleat/pkg/plugin"

// Plugin is the vrf plugin.
var Plugin = plugin.Spec[config]{
	Name: "vrf", Since: "0.3.1", Role: plugin.Chained, Parse: parse, HasRecord: func(config) bool { return true },
	Add: attach, Del: detach, Check: check,
}
