package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/clusterd"
	"github.com/netcleat/netcleat/pkg/journal"
)

func clusterCommand() *cobra.Command {
	c := &cobra.Command{Use: "cluster", Short: "Share ranges of addresses among hosts", Args: cobra.NoArgs}
	settings := c.PersistentFlags().String("config", clusterd.DefaultSettings, "the `file` with etcd's endpoints and this host's name")
	c.AddCommand(clusterDaemonCommand(settings), clusterStatusCommand(settings), clusterReleaseCommand(settings))
	return c
}

func clusterDaemonCommand(settings *string) *cobra.Command {
	return &cobra.Command{
		Use: "daemon", Short: "Run the daemon of the cluster-local plugin", Args: cobra.NoArgs,
		Long: `Run the daemon of the cluster-local plugin. It owns blocks of addresses for this host, in etcd,
and tells the plugin which. Containers start and stop without it as long as this host's blocks
have free addresses.`,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := clusterd.ReadSettings(*settings)
			if err != nil {
				return err
			}
			return clusterd.Run(c.Context(), s, journal.Default)
		},
	}
}

func clusterStatusCommand(settings *string) *cobra.Command {
	format := ""
	c := &cobra.Command{
		Use: "status", Short: "Show hosts, and which addresses they own", Args: cobra.NoArgs,
		Long: `Show the hosts of the cluster, and for each network the addresses that each host owns, is short
of, or was denied. It reads etcd.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := textOrJSON(format); err != nil {
				return err
			}
			s, err := clusterd.ReadSettings(*settings)
			if err != nil {
				return err
			}
			r, err := clusterd.Status(c.Context(), s)
			if err != nil {
				return err
			}
			return r.Print(c.OutOrStdout(), format)
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return c
}

func clusterReleaseCommand(settings *string) *cobra.Command {
	force := false
	c := &cobra.Command{
		Use: "release-host HOST", Short: "Give back the blocks of a host that no longer exists", Args: cobra.ExactArgs(1),
		Long: `Give back the blocks of a host that no longer exists. Other hosts hand out its addresses from then on.

The host must be off, or its containers stopped. If it is running and only cannot be reached, its
containers keep their addresses, and others get the same: nothing can prevent that.`,
		RunE: func(c *cobra.Command, args []string) error {
			s, err := clusterd.ReadSettings(*settings)
			if err != nil {
				return err
			}
			if !force {
				if err := confirmHost(c.InOrStdin(), c.OutOrStdout(), args[0]); err != nil {
					return err
				}
			}
			n, err := clusterd.ReleaseHost(c.Context(), s, args[0])
			if err != nil {
				return fmt.Errorf("release-host %s: %w (%d addresses released; run the command again)", args[0], err, n)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "host %s: %d addresses released\n", args[0], n)
			return err
		},
	}
	c.Flags().BoolVar(&force, "force", false, "do not ask for the name again")
	return c
}

// confirmHost has the user type the host's name again.
func confirmHost(in io.Reader, out io.Writer, host string) error {
	if f, ok := in.(*os.File); ok {
		if st, err := f.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 {
			return fmt.Errorf("stdin is not a terminal; use --force to skip the confirmation")
		}
	}
	fmt.Fprintf(out, "Other hosts will hand out all addresses of host %s.\nIf %s is running, containers of both will have the same addresses.\nType the host's name to go on: ", host, host)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		return err
	}
	if strings.TrimSpace(line) != host {
		return fmt.Errorf("%q is not %q: nothing was released", strings.TrimSpace(line), host)
	}
	return nil
}
