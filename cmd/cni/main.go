// Command cni is the plugin binary: run under the name of a plugin, it is that
// plugin.
//
// What is linked in here is paid for at every start of every plugin; the
// operator's command is another binary for that reason.
//
// The number of processors is not watched: the goroutine for that would be started
// for a call of milliseconds.
//
//go:debug updatemaxprocs=0
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/netcleat/netcleat/cmd/suite"
	_ "github.com/netcleat/netcleat/pkg/headroom"
	"github.com/netcleat/netcleat/pkg/plugin"
	dhcp "github.com/netcleat/netcleat/plugins/dhcp-ipam"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "daemon" && filepath.Base(os.Args[0]) == "dhcp" {
		fmt.Fprintln(os.Stderr, dhcp.StartDaemon(os.Args[2:]))
		os.Exit(1)
	}
	plugin.Main(suite.Plugins())
}
