package main

import (
	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/docs/schema"
)

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema [PLUGIN]",
		Short: "Print the JSON Schema of configurations, for editors",
		Long: `Print the JSON Schema of a conflist, or of the configuration of one PLUGIN (for host-local,
static and dhcp, the ipam section). Editors complete and check configurations with it. It
has the same keys as netcleat lint.`,
		Example: `  netcleat schema >conflist.schema.json
  netcleat schema bridge | jq .properties.mtu`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			name := schema.List
			if len(args) > 0 {
				name = args[0]
			}
			text, err := schema.Text(name)
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
}
