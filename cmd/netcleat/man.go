package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// manCommand is for who packages this.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the man pages into DIR",
		Hidden: true,
		Long: `Write one man page for each command into DIR, which is created if it does not exist.
SOURCE_DATE_EPOCH, if set, is the date of the pages.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("directory for the pages: %w", err)
			}
			c.Root().DisableAutoGenTag = true
			return doc.GenManTree(c.Root(), &doc.GenManHeader{Section: "8", Source: "netcleat v" + plugin.Version, Manual: "netcleat"}, args[0])
		},
	}
}
