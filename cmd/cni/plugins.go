package main

import (
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/bridge"
	"github.com/netcleat/netcleat/plugins/dummy"
	hostdevice "github.com/netcleat/netcleat/plugins/host-device"
	"github.com/netcleat/netcleat/plugins/ipvlan"
	"github.com/netcleat/netcleat/plugins/loopback"
	"github.com/netcleat/netcleat/plugins/macvlan"
	"github.com/netcleat/netcleat/plugins/ptp"
	static "github.com/netcleat/netcleat/plugins/static-ipam"
	"github.com/netcleat/netcleat/plugins/tap"
	"github.com/netcleat/netcleat/plugins/vlan"
)

// plugins is the one table of plugins, by the names they are run under.
var plugins = plugin.Table{
	"bridge":      bridge.Plugin,
	"dummy":       dummy.Plugin,
	"host-device": hostdevice.Plugin,
	"ipvlan":      ipvlan.Plugin,
	"loopback":    loopback.Plugin,
	"macvlan":     macvlan.Plugin,
	"ptp":         ptp.Plugin,
	"static":      static.Plugin,
	"tap":         tap.Plugin,
	"vlan":        vlan.Plugin,
}
