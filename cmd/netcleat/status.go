package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/doctor"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/cmd/netcleat/status"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
)

func statusCommand() *cobra.Command {
	o := doctor.Options{Places: show.Defaults()}
	var format string
	c := &cobra.Command{
		Use:   "status",
		Short: "Sum up the host's container networks on one screen",
		Long: `Sum up the host's container networks on one screen: versions of the suite, the kernel, the
plugins and the runtimes; networks with their attachments and used addresses; attachments
that are not ok; daemons that networks need; and how much netcleat doctor finds.`,
		Example: `  netcleat status
  netcleat status -o json | jq .doctor`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := textOrJSON(format); err != nil {
				return err
			}
			o.Binary = besideOrNone()
			s, err := status.Of(c.Context(), o)
			if format == "json" {
				return errors.Join(term.JSON(c.OutOrStdout(), s), err)
			}
			return errors.Join(s.Print(c.OutOrStdout()), err)
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	c.Flags().StringVar(&o.Path, "cni-path", cniPath(), "directory of the plugins")
	confDir(c, &o.Places)
	return c
}
