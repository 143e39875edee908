// Command cni is all plugins of the suite. It is run under a plugin's name.
package main

import (
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/bridge"
	"github.com/netcleat/netcleat/plugins/loopback"
)

func main() {
	plugin.Main(plugin.Table{"bridge": bridge.Plugin, "loopback": loopback.Plugin})
}
