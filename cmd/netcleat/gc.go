package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/collect"
	"github.com/netcleat/netcleat/pkg/journal"
)

func gcCommand() *cobra.Command {
	o := collect.Options{Journal: journal.Default}
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove what is left of containers that are provably gone",
		Long: `Remove what is left of attachments whose sandbox is provably gone, of all networks:
links, addresses, rules, published ports and records. The plugins' own DEL does it,
with the configuration that the attachment was made with.

A sandbox is gone when its end of a veth pair is, when another namespace has got its
number, or when no process, descriptor or mount on the machine holds it. That its path
does not exist proves nothing. What cannot be proven is left, and named; so is all that
the reference attached, of which there is no record. What libcni remembers is the
runtime's, but for what netcleat network connect has attached, which is forgotten.`,
		Example: `  netcleat gc --dry-run
  netcleat gc`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Out, o.Tell = c.OutOrStdout(), c.ErrOrStderr()
			if o.Plugins.Binary == "" {
				o.Plugins.Binary = besideOrNone()
			}
			return collect.Run(c.Context(), o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.DryRun, "dry-run", false, "say what would be done, and do nothing")
	f.StringVar(&o.Plugins.Binary, "plugins", "", "the plugin binary; by default the file cni beside this command, or what is installed")
	f.StringVar(&o.Plugins.Path, "cni-path", cniPath(), "where plugins are installed")
	return c
}

// besideOrNone returns the plugin binary that was built with this command, or ""
// where it is not beside it any more: then the installed plugins do.
func besideOrNone() string {
	path, err := beside()
	if err != nil {
		return ""
	}
	return path
}

// cniPath is where runtimes look for plugins.
func cniPath() string {
	if path := os.Getenv("CNI_PATH"); path != "" {
		return path
	}
	return "/opt/cni/bin"
}
