package main

import (
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/bridge"
	hostdevice "github.com/netcleat/netcleat/plugins/host-device"
	"github.com/netcleat/netcleat/plugins/loopback"
	static "github.com/netcleat/netcleat/plugins/static-ipam"
	"github.com/netcleat/netcleat/plugins/tap"
)

// plugins is the one table of plugins, by the names they are run under.
var plugins = plugin.Table{
	"bridge":      bridge.Plugin,
	"host-device": hostdevice.Plugin,
	"loopback":    loopback.Plugin,
	"static":      static.Plugin,
	"tap":         tap.Plugin,
}
