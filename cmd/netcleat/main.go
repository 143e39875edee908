// Command netcleat is what an operator types: it installs the plugins, and
// tells about them. Its files have the subcommands' flags; packages do the work.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/plugin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	c, err := root().ExecuteContextC(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "netcleat:", err)
		os.Exit(exitCode(c, err))
	}
}

// root returns the command with all its subcommands.
func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "netcleat",
		Short:         "Install and operate the netcleat CNI plugins",
		Version:       plugin.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	c.SetVersionTemplate(versionText())
	c.AddCommand(clusterCommand(), dhcpCommand(), dnsCommand(), doctorCommand(), explainCommand(), forgetCommand(), gcCommand(), graphCommand(), installCommand(), lintCommand(), lsCommand(), networkCommand(), reconcileCommand(), schemaCommand(), statusCommand(), versionCommand())
	c.AddCommand(manCommand(), pauseCommand())
	// Backquotes mark the names of values in help texts; completion shows them as they are.
	c.PersistentPreRun = func(sub *cobra.Command, _ []string) {
		if sub.Name() == cobra.ShellCompRequestCmd {
			unquote(c)
		}
	}
	comfort(c)
	return c
}
