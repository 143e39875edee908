// Package bandwidth is the chained CNI plugin that limits the rate at which a
// container sends and receives.
//
// What the container receives passes a token bucket on the host's end of its
// veth pair. What it sends arrives there, is redirected to an ifb device of its
// own, and passes the token bucket on that.
package bandwidth

import "github.com/netcleat/netcleat/pkg/plugin"

// Plugin is the bandwidth plugin.
var Plugin = plugin.Spec[config]{
	Name: "bandwidth", Since: "0.3.0", Role: plugin.Chained, Parse: parse, HasRecord: config.limits,
	Add: attach, Del: detach, Check: check, Restore: Reconcile,
}
