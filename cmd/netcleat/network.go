package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

func networkCommand() *cobra.Command {
	c := &cobra.Command{Use: "network", Short: "Show, create, test and remove networks, and connect containers"}
	c.AddCommand(networkLsCommand(), networkInspectCommand(), networkCreateCommand(), networkConnectCommand(), networkDisconnectCommand(), networkRmCommand(), networkPruneCommand(), networkTestCommand())
	return c
}

func networkLsCommand() *cobra.Command {
	places := show.Defaults()
	var l listing
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List networks and their address usage",
		Example: `  netcleat network ls
  netcleat network ls -q --filter label=team=shop
  netcleat network ls --format '{{.Name}} {{.Driver}}'
  netcleat network ls -o wide --conf-dir /etc/cni/net.d`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := l.check(show.NetworkFilters)
			if err != nil {
				return err
			}
			all, err := show.Networks(c.Context(), places)
			return errors.Join(show.PrintNetworks(c.OutOrStdout(), show.FilterNetworks(all, filters), l.Format), err)
		},
	}
	l.flags(c, "names", show.NetworkFilters)
	confDir(c, &places)
	return c
}

func networkInspectCommand() *cobra.Command {
	places, format := show.Defaults(), ""
	c := &cobra.Command{
		Use:   "inspect NETWORK…",
		Short: "Print everything about networks, including their firewall rules, as JSON",
		Example: `  netcleat network inspect nat
  netcleat network inspect nat --format '{{.Name}} {{.Link}}'
  netcleat network inspect nat | jq -r '.[0].containers[].addresses[0]'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f := show.Format{Output: "json", Template: format}
			if err := f.Check(); err != nil {
				return err
			}
			all, err := show.Networks(c.Context(), places)
			found, ferr := show.Inspect(c.Context(), all, args...)
			return errors.Join(show.PrintNetworks(c.OutOrStdout(), found, f), ferr, err)
		},
	}
	c.Flags().StringVar(&format, "format", "", "Go `TEMPLATE` for each network; json prints one object a line")
	confDir(c, &places)
	return c
}

// listing has the flags of lists, which are Docker's and podman's.
type listing struct {
	show.Format
	filters []string
}

func (l *listing) flags(c *cobra.Command, quiet string, keys []string) {
	f := c.Flags()
	f.StringVarP(&l.Output, "output", "o", "table", "table, wide or json")
	f.StringVar(&l.Template, "format", "", "Go `TEMPLATE` for each line, with \"table\" before it in columns; json prints one object a line")
	f.StringArrayVarP(&l.filters, "filter", "f", nil, "`KEY=VALUE`: only what matches; KEY is "+strings.Join(keys, ", "))
	f.BoolVarP(&l.Quiet, "quiet", "q", false, "print only "+quiet)
	f.BoolVar(&l.NoTrunc, "no-trunc", false, "print whole IDs")
	c.MarkFlagsMutuallyExclusive("format", "output")
	c.MarkFlagsMutuallyExclusive("format", "quiet")
}

// check returns the filters.
func (l *listing) check(keys []string) ([]show.Filter, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	return show.ParseFilters(l.filters, keys...)
}

func confDir(c *cobra.Command, p *show.Places) {
	c.Flags().StringVar(&p.NetConf, "conf-dir", p.NetConf, "directory of network configurations")
}
