package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/pkg/plugin"
)

func versionText() string {
	return fmt.Sprintf("netcleat v%s (%s, %s/%s)\n", plugin.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: `  netcleat version`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(c.OutOrStdout(), versionText())
			return err
		},
	}
}
