package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

func lsCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "ls [NETWORK]",
		Short: "List the attachments of containers to networks",
		Long: `List the attachments of containers to networks: those of netcleat's plugins, and those of
others that are in libcni's cache.

HEALTH is ok, or the first problem: the sandbox no longer exists or has moved; its
interface is missing or down; the host end is missing, down, or no longer a port of its
bridge.`,
		Example: `  netcleat ls
  netcleat ls nat -o wide
  netcleat ls -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := show.CheckFormat(format); err != nil {
				return err
			}
			rows, err := show.Rows(show.Defaults())
			if len(args) > 0 {
				rows = show.Of(rows, args[0])
			}
			return errors.Join(show.PrintRows(c.OutOrStdout(), rows, format), err)
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "table", "table, wide or json")
	return c
}
