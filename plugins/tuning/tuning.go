// Package tuning is the chained CNI plugin that sets sysctls of the sandbox and
// attributes of the interface in it, and sets them back.
package tuning

import (
	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Plugin is the tuning plugin.
var Plugin = spec("/etc/cni/tuning/allowlist.conf")

// spec is the plugin with the allowlist in that file. A list may have tuning
// more than once, hence Again.
func spec(allowlist string) plugin.Spec[config] {
	return plugin.Spec[config]{
		Name: "tuning", Parse: parse, Keeps: config.changes, Again: true,
		Add: attach(allowlist), Del: detach, Check: check,
	}
}

// chained requires the result of the plugin before.
func chained(c *plugin.Call) error {
	if len(c.Conf.PrevResult) == 0 || string(c.Conf.PrevResult) == "null" {
		return cnierr.Config("tuning: Required prevResult missing")
	}
	return nil
}
