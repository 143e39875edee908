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
		Short: "Remove what is left of containers that are provably dead",
		Long: `Remove what is left of attachments that are provably dead, of all networks:
links, addresses, rules, published ports and records. The plugins' own DEL does it,
with the configuration that the attachment was made with.

An attachment is dead when its sandbox has ended, its end on the host no longer exists,
and no process, descriptor or mount on the machine holds its namespace; or when it was
made in an earlier boot. That its path does not exist proves nothing. What cannot be
proven, or not be seen from here, is left and named with the command that removes it all
the same (netcleat forget); so is all that the reference attached, of which there is no
record. What libcni remembers is the runtime's, but for what netcleat network connect has
attached, which is forgotten.`,
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
