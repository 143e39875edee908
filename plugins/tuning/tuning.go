// Package tuning is the chained CNI plugin that sets sysctls of the sandbox and
// attributes of the interface in it, and sets them back.
package tuning

import "github.com/netcleat/netcleat/pkg/plugin"

// allowlist is the node's list of sysctls that may be set.
const allowlist = "/etc/cni/tuning/allowlist.conf"

// Plugin is the tuning plugin. A list may have it more than once, hence AllowRepeat.
var Plugin = plugin.Spec[config]{
	Name: "tuning", Role: plugin.Chained, Parse: parse, HasRecord: config.changes, AllowRepeat: true,
	Add: attach, Del: detach, Check: check,
}

const unchained = "Required prevResult missing"
