package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

func networkCommand() *cobra.Command {
	c := &cobra.Command{Use: "network", Short: "Show, create and remove networks, and connect containers"}
	c.AddCommand(networkLsCommand(), networkInspectCommand(), networkCreateCommand(), networkConnectCommand(), networkDisconnectCommand(), networkRmCommand(), networkPruneCommand())
	return c
}

func networkLsCommand() *cobra.Command {
	places, format := show.Defaults(), ""
	c := &cobra.Command{
		Use:   "ls",
		Short: "List networks and their address usage",
		Example: `  netcleat network ls
  netcleat network ls -o wide --conf-dir /etc/cni/net.d`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := show.CheckFormat(format); err != nil {
				return err
			}
			all, err := show.Networks(c.Context(), places)
			return errors.Join(show.PrintNetworks(c.OutOrStdout(), all, format), err)
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "table", "table, wide or json")
	confDir(c, &places)
	return c
}

func networkInspectCommand() *cobra.Command {
	places := show.Defaults()
	c := &cobra.Command{
		Use:   "inspect NETWORK",
		Short: "Print everything about a network, including its firewall rules, as JSON",
		Example: `  netcleat network inspect nat
  netcleat network inspect nat | jq -r '.[0].containers[].addresses[0]'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			all, err := show.Networks(c.Context(), places)
			return errors.Join(show.Inspect(c.Context(), c.OutOrStdout(), all, args[0]), err)
		},
	}
	confDir(c, &places)
	return c
}

func confDir(c *cobra.Command, p *show.Places) {
	c.Flags().StringVar(&p.NetConf, "conf-dir", p.NetConf, "directory of network configurations")
}
