// Package suite lists the plugins, for the plugin binary and the operator's command.
package suite

import (
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/bandwidth"
	"github.com/netcleat/netcleat/plugins/bridge"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
	dhcp "github.com/netcleat/netcleat/plugins/dhcp-ipam"
	"github.com/netcleat/netcleat/plugins/dnsname"
	"github.com/netcleat/netcleat/plugins/dummy"
	"github.com/netcleat/netcleat/plugins/firewall"
	hostdevice "github.com/netcleat/netcleat/plugins/host-device"
	hostlocal "github.com/netcleat/netcleat/plugins/hostlocal-ipam"
	"github.com/netcleat/netcleat/plugins/ipvlan"
	"github.com/netcleat/netcleat/plugins/loopback"
	"github.com/netcleat/netcleat/plugins/macvlan"
	"github.com/netcleat/netcleat/plugins/portmap"
	"github.com/netcleat/netcleat/plugins/ptp"
	"github.com/netcleat/netcleat/plugins/sbr"
	static "github.com/netcleat/netcleat/plugins/static-ipam"
	"github.com/netcleat/netcleat/plugins/tap"
	"github.com/netcleat/netcleat/plugins/tuning"
	"github.com/netcleat/netcleat/plugins/vlan"
	"github.com/netcleat/netcleat/plugins/vrf"
)

// Plugins returns all plugins, by the names they are run under. Pointers, for each
// copy would be an allocation at every start.
func Plugins() plugin.Table {
	return plugin.Table{
		"bandwidth":     &bandwidth.Plugin,
		"bridge":        &bridge.Plugin,
		"cluster-local": &clusterlocal.Plugin,
		"dhcp":          &dhcp.Plugin,
		"dnsname":       &dnsname.Plugin,
		"dummy":         &dummy.Plugin,
		"firewall":      &firewall.Plugin,
		"host-device":   &hostdevice.Plugin,
		"host-local":    &hostlocal.Plugin,
		"ipvlan":        &ipvlan.Plugin,
		"loopback":      &loopback.Plugin,
		"macvlan":       &macvlan.Plugin,
		"portmap":       &portmap.Plugin,
		"ptp":           &ptp.Plugin,
		"sbr":           &sbr.Plugin,
		"static":        &static.Plugin,
		"tap":           &tap.Plugin,
		"tuning":        &tuning.Plugin,
		"vlan":          &vlan.Plugin,
		"vrf":           &vrf.Plugin,
	}
}
