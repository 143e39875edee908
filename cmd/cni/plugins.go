package main

import (
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/bandwidth"
	"github.com/netcleat/netcleat/plugins/bridge"
	hostlocal "github.com/netcleat/netcleat/plugins/hostlocal-ipam"
	"github.com/netcleat/netcleat/plugins/loopback"
	"github.com/netcleat/netcleat/plugins/portmap"
	"github.com/netcleat/netcleat/plugins/sbr"
	static "github.com/netcleat/netcleat/plugins/static-ipam"
	"github.com/netcleat/netcleat/plugins/tuning"
)

// plugins is the one table of plugins, by the names they are run under.
var plugins = plugin.Table{
	"bandwidth":  bandwidth.Plugin,
	"bridge":     bridge.Plugin,
	"host-local": hostlocal.Plugin,
	"loopback":   loopback.Plugin,
	"portmap":    portmap.Plugin,
	"sbr":        sbr.Plugin,
	"static":     static.Plugin,
	"tuning":     tuning.Plugin,
}
