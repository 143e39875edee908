package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/lint"
)

func lintCommand() *cobra.Command {
	var p lint.Plugins
	c := &cobra.Command{
		Use:   "lint FILE…",
		Short: "Check network configurations with the plugins' own parsers",
		Long: `Check network configurations with the plugins' own parsers: JSON, with line and
column; what each plugin and its IPAM plugin would refuse; plugins that do not exist.
It looks at no network and changes nothing. Keys that no plugin knows are not noticed.`,
		Example: `  netcleat lint /etc/cni/net.d/*.conflist`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if p.Binary == "" {
				p.Binary = besideOrNone()
			}
			n := 0
			for _, path := range args {
				for _, wrong := range lint.File(c.Context(), p, path) {
					fmt.Fprintln(c.OutOrStdout(), wrong)
					n++
				}
			}
			if n > 0 {
				return fmt.Errorf("%d errors", n)
			}
			return nil
		},
	}
	c.Flags().StringVar(&p.Binary, "plugins", "", "the plugin binary; by default the file cni beside this command, or what is installed")
	c.Flags().StringVar(&p.Path, "cni-path", cniPath(), "where plugins are installed")
	return c
}
