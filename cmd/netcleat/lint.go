package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/lint"
	"github.com/netcleat/netcleat/cmd/netcleat/runtimes"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
)

func lintCommand() *cobra.Command {
	var format string
	var strict bool
	c := &cobra.Command{
		Use:   "lint [FILE|DIR…]",
		Short: "Check network configurations before a runtime uses them",
		Long: `Check network configurations: those in FILEs, and those in a DIR that runtimes read.
Each finding has its file, line and column.

    error    what a runtime or a plugin refuses, or what cannot work: JSON, versions,
             what the plugins' own parsers say, plugins in the wrong order, addresses
             that two networks hand out
    warning  what works otherwise than it reads: keys that nothing reads, capabilities
             that are missing, gateways outside of their subnet; a cniVersion that an
             installed containerd, nerdctl or podman does not read
    note     plugins of others, which are not checked

Without FILE or DIR it checks every directory that the host's runtimes use:
/etc/cni/net.d, nerdctl's below it, and those that the configuration files of
containerd, nerdctl, CRI-O and podman name.

Networks in one directory are compared with each other. It looks at files, asks
installed runtimes for their version, and changes nothing. The exit status is 1 where there are
errors, with --strict also where there are warnings.`,
		Example: `  netcleat lint /etc/cni/net.d
  netcleat lint --strict -o json nat.conflist`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = show.Defaults().Dirs()
			}
			found := lint.CheckFor(runtimes.Installed(c.Context()), args...)
			if err := lint.Print(c.OutOrStdout(), found, format); err != nil {
				return err
			}
			if len(found) == 0 && format == "text" {
				fmt.Fprintf(c.OutOrStdout(), "OK: %s\n", term.Count(lint.Files(args...), "file"))
			}
			wrong, doubtful := lint.Count(found, lint.Error), lint.Count(found, lint.Warning)
			if wrong > 0 || strict && doubtful > 0 {
				return errors.New(term.Count(wrong, "error") + ", " + term.Count(doubtful, "warning"))
			}
			return nil
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	c.Flags().BoolVar(&strict, "strict", false, "fail also where there are warnings")
	return c
}
