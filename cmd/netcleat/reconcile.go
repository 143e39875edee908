package main

import (
	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/reconcile"
	"github.com/netcleat/netcleat/pkg/journal"
)

func reconcileCommand() *cobra.Command {
	o := reconcile.Options{Journal: journal.Default}
	c := &cobra.Command{
		Use:   "reconcile",
		Short: "Restore the rules of all attachments",
		Long: `Restore the rules of all attachments that live, of all networks: masquerading,
published ports, what firewall lets through or keeps out, the check of hardware
addresses (macspoofchk), limits (bandwidth), and routing by source address (sbr). It is
for after a flush of the rules, and for after firewalld has been reloaded.

All it needs is what the plugins have written to ` + string(journal.Default) + `. What is in place
stays as it is, so that it may be called at any time. Attachments whose sandbox is
provably gone are named and skipped.`,
		Example: `  nft flush ruleset; netcleat reconcile
  netcleat reconcile --verbose`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Out, o.Tell = c.OutOrStdout(), c.ErrOrStderr()
			return reconcile.Run(c.Context(), o)
		},
	}
	c.Flags().BoolVarP(&o.Verbose, "verbose", "v", false, "tell each change")
	return c
}
