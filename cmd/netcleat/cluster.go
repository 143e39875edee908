package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/clusterd"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
	"github.com/netcleat/netcleat/pkg/journal"
)

func clusterCommand() *cobra.Command {
	c := &cobra.Command{Use: "cluster", Short: "Share ranges of addresses among hosts", Args: cobra.NoArgs}
	settings := c.PersistentFlags().String("config", clusterd.DefaultSettings, "the `file` with etcd's endpoints and this host's name")
	c.AddCommand(clusterDaemonCommand(settings), clusterStatusCommand(settings), clusterCheckCommand(settings), clusterFRRCommand(), clusterReleaseCommand(settings), clusterResetCommand(settings), clusterResumeCommand(settings))
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

func clusterCheckCommand(settings *string) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Compare what this host forwards to others, and its names, with etcd", Args: cobra.NoArgs,
		Long: `Compare what the uplinks of this host's overlay networks forward, and the names of its containers
on them, with what etcd says. It changes nothing, prints what differs, and fails where something
does. The daemon repairs differences when it starts, and once a minute.`,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := clusterd.ReadSettings(*settings)
			if err != nil {
				return err
			}
			differences, err := clusterd.Verify(c.Context(), s)
			for _, d := range differences {
				fmt.Fprintln(c.OutOrStdout(), d)
			}
			if err == nil && len(differences) > 0 {
				err = errors.New("this host does not forward as etcd says")
			}
			return err
		},
	}
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

func clusterResetCommand(settings *string) *cobra.Command {
	force := false
	c := &cobra.Command{
		Use: "reset", Short: "Have all hosts say again which blocks they use, after etcd was restored", Args: cobra.NoArgs,
		Long: `Have all hosts say again which blocks they use. It is the way out when etcd was restored from a
backup and has forgotten who owns what: the daemons refuse such an etcd, and hosts use what they have.

It removes all owners in etcd. Each daemon that reaches etcd adopts what its host uses; containers do
not notice. No other block changes hands until netcleat cluster resume. A host that is not there by
then, and whose containers run, gets duplicates: wait for all.`,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := clusterd.ReadSettings(*settings)
			if err != nil {
				return err
			}
			if !force {
				const what = "All owners of blocks are removed from etcd; each host's daemon writes its own again."
				if err := confirm(c.InOrStdin(), c.OutOrStdout(), what, "reset"); err != nil {
					return err
				}
			}
			hosts, err := clusterd.Reset(c.Context(), s)
			if err != nil {
				return fmt.Errorf("reset: %w (run the command again)", err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "hosts to adopt their blocks: %s\nwatch netcleat cluster status, and then: netcleat cluster resume\n", strings.Join(hosts, ", "))
			return err
		},
	}
	c.Flags().BoolVar(&force, "force", false, "do not ask")
	return c
}

func clusterResumeCommand(settings *string) *cobra.Command {
	return &cobra.Command{
		Use: "resume", Short: "Let blocks change hands again, after reset", Args: cobra.NoArgs,
		Long: `Let blocks change hands again, after netcleat cluster reset or the key stop. It fails while a
host has not adopted its blocks.`,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := clusterd.ReadSettings(*settings)
			if err != nil {
				return err
			}
			return clusterd.Resume(c.Context(), s)
		},
	}
}

// confirmHost has the user type the host's name again.
func confirmHost(in io.Reader, out io.Writer, host string) error {
	what := fmt.Sprintf("Other hosts will hand out all addresses of host %s.\nIf %s is running, containers of both will have the same addresses.", host, host)
	return confirm(in, out, what, host)
}

// confirm has the user type a word.
func confirm(in io.Reader, out io.Writer, what, word string) error {
	if f, ok := in.(*os.File); ok && !term.Is(f) {
		return errors.New("stdin is not a terminal; use --force to skip the confirmation")
	}
	fmt.Fprintf(out, "%s\nType %q to go on: ", what, word)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		return err
	}
	if strings.TrimSpace(line) != word {
		return fmt.Errorf("%q is not %q: nothing was changed", strings.TrimSpace(line), word)
	}
	return nil
}
