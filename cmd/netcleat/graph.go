package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/graph"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

func graphCommand() *cobra.Command {
	places, format := show.Defaults(), ""
	c := &cobra.Command{
		Use:   "graph [NETWORK]",
		Short: "Draw the path from the host to each container",
		Long: `Draw the path from the host to each container: bridge or parent, both ends of each link
with their indexes, addresses and published ports. Without NETWORK, all networks are drawn.`,
		Example: `  netcleat graph
  netcleat graph nat --format svg >nat.svg`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			all, err := show.Networks(c.Context(), places)
			if len(args) > 0 {
				n, ferr := show.FindNetwork(all, args[0])
				if ferr != nil {
					return errors.Join(ferr, err)
				}
				all = []show.Network{n}
			}
			return errors.Join(graph.Draw(c.OutOrStdout(), all, format), err)
		},
	}
	c.Flags().StringVar(&format, "format", "text", strings.Join(graph.Formats, ", "))
	confDir(c, &places)
	return c
}
