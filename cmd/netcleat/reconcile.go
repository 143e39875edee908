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
		Long: `Restore the rules of all running attachments, in all networks: masquerading, published
ports, firewall's rules, MAC address checks (macspoofchk), limits (bandwidth) and
source-based routing (sbr). Use it after a firewall flush or a reload of firewalld.

It only needs the plugins' records in ` + string(journal.Default) + `. Existing rules are not touched, so it
is safe to run at any time. Attachments whose sandbox provably no longer exists are listed
and skipped.`,
		Example: `  nft flush ruleset; netcleat reconcile
  netcleat reconcile --verbose`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Out, o.Tell = c.OutOrStdout(), c.ErrOrStderr()
			return reconcile.Run(c.Context(), o)
		},
	}
	c.Flags().BoolVarP(&o.Verbose, "verbose", "v", false, "print each change")
	return c
}
