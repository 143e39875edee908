package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

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
			date, err := sourceDate()
			if err != nil {
				return err
			}
			c.Root().DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "8", Source: "netcleat v" + plugin.Version, Manual: "netcleat", Date: &date}
			return doc.GenManTree(c.Root(), header, args[0])
		},
	}
}

// sourceDate is SOURCE_DATE_EPOCH, or now, in UTC: the library takes the local time zone,
// and the pages of one commit then name one month here and another there.
func sourceDate() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now().UTC(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds", epoch)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
