package main

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/explain"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

func lsCommand() *cobra.Command {
	places := show.Defaults()
	var l listing
	c := &cobra.Command{
		Use:     "ls [NETWORK]",
		Aliases: []string{"list", "ps"},
		Short:   "List the attachments of containers to networks",
		Long: `List the attachments of containers to networks: those of netcleat's plugins, and those of
others that are in libcni's cache.

CONTAINER is the container's name or pod, if that is known, or else its ID, of which a long
one is cut to 12 characters.

HEALTH is ok, or the first problem or warning of netcleat explain, without the plugins' own
CHECK.`,
		Example: `  netcleat ls
  netcleat ls nat -o wide
  netcleat ls --filter name=web --format '{{.Name}} {{.Addresses}}'
  netcleat ls -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			filters, err := l.check(show.RowFilters)
			if err != nil {
				return err
			}
			rows, err := show.Rows(places)
			if len(args) > 0 {
				if rows = show.Of(rows, args[0]); len(rows) == 0 {
					all, nerr := show.Networks(c.Context(), places)
					if _, ferr := show.FindNetwork(all, args[0]); ferr != nil {
						return errors.Join(ferr, nerr, err)
					}
				}
			}
			if !l.Quiet || slices.ContainsFunc(filters, func(f show.Filter) bool { return f.Key == "health" }) {
				var herr error
				rows, herr = explain.Health(c.Context(), explain.Options{Places: places}, rows)
				err = errors.Join(err, herr)
			}
			return errors.Join(show.PrintRows(c.OutOrStdout(), show.FilterRows(rows, filters), l.Format), err)
		},
	}
	l.flags(c, "the IDs of containers", show.RowFilters)
	confDir(c, &places)
	return c
}
