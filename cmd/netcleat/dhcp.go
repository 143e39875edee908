package main

import (
	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/dhcpd"
)

func dhcpCommand() *cobra.Command {
	c := &cobra.Command{Use: "dhcp", Short: "Hold the leases of the dhcp plugin", Args: cobra.NoArgs}
	c.AddCommand(&cobra.Command{
		Use:   "daemon [-pidfile FILE] [-hostprefix DIR] [-socketpath SOCKET] [-broadcast] [-timeout T] [-resendmax T] [-resendtimeout T]",
		Short: "Run the daemon that the dhcp plugin asks for addresses",
		Long: `Run the daemon that the dhcp plugin asks for addresses. It gets leases from DHCP
servers, renews them, and gives them back. Each has a file beside the socket, with
which the next daemon carries on.

-h lists the flags. They are the reference's, with one dash or two.`,
		// The reference's flags have one dash.
		DisableFlagParsing: true,
		RunE:               func(c *cobra.Command, args []string) error { return dhcpd.Run(c.Context(), args) },
	})
	return c
}
