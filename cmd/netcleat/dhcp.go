package main

import (
	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/dhcpd"
)

func dhcpCommand() *cobra.Command {
	c := &cobra.Command{Use: "dhcp", Short: "Hold the leases of the dhcp plugin", Args: cobra.NoArgs}
	c.AddCommand(&cobra.Command{
		Use:   "daemon [-pidfile FILE] [-hostprefix DIR] [-socketpath SOCKET] [-broadcast] [-timeout T] [-resendmax T] [-resendtimeout T]",
		Short: "Run the daemon of the dhcp plugin",
		Long: `Run the daemon of the dhcp plugin. It gets leases from DHCP servers, renews them and releases
them. Each lease has a file next to the socket, from which a restarted daemon continues.

-h lists the flags. They are the reference's, with one or two dashes.`,
		// The reference's flags have one dash.
		DisableFlagParsing: true,
		RunE:               func(c *cobra.Command, args []string) error { return dhcpd.Run(c.Context(), args) },
	})
	return c
}
