// Command plugin is dnsname alone, with the records where TEST_JOURNAL says: what the
// benchmarks compare with containers/dnsname.
package main

import (
	"context"
	"os"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

func main() {
	p := plugin.Process{Name: dnsname.Name, Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Journal: journal.Dir(os.Getenv("TEST_JOURNAL"))}
	os.Exit(p.Run(context.Background(), plugin.Table{dnsname.Name: &dnsname.Plugin}))
}
