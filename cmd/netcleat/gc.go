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
		Short: "Remove leftovers of containers that are provably dead",
		Long: `Remove leftovers of attachments that are provably dead, in all networks: links, addresses,
rules, published ports and records. This calls the plugins' own DEL with the configuration
of the attachment.

An attachment is dead if its sandbox was deleted, its host end no longer exists, and no
process, descriptor or mount on the machine holds its namespace; or if it was created in an
earlier boot. A missing path proves nothing. Anything that cannot be proven, or cannot be
seen from here, is kept and listed with the command that removes it (netcleat forget).
Attachments of the reference, which have no record, are kept, too. Entries in libcni's
cache belong to the runtime, except those of netcleat network connect, which are removed.`,
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
