// Command cni is the plugin binary: run under the name of a plugin, it is that
// plugin.
//
// What is linked in here is paid for at every start of every plugin; the
// operator's command is another binary for that reason.
package main

import "github.com/netcleat/netcleat/pkg/plugin"

func main() { plugin.Main(plugins) }
