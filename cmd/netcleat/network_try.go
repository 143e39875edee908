package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/doctor"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
	"github.com/netcleat/netcleat/cmd/netcleat/trial"
)

func networkTestCommand() *cobra.Command {
	o := trial.Options{}
	o.Places = show.Defaults()
	var format string
	var targets []string
	c := &cobra.Command{
		Use:   "test NETWORK",
		Short: "Test a network with two sandboxes of its own",
		Long: `Attach two new sandboxes to a network, and send packets: between them, to the gateway, to an
address outside if the network masquerades, for the other's name if the network has names,
and to a published port if a plugin has the capability portMappings. Then detach them: nothing
stays, also if the command is interrupted.

Outside is what --target names, or the next hop of the host's default route. If anything
fails, the root cause that netcleat explain finds is printed, and the command that fixes it.

The exit status is 0 if everything works, 1 if something does not, and 2 if the network could
not be tested: without root, for a network that does not exist, or if it was interrupted.`,
		Example: `  netcleat network test web
  netcleat network test web --target 192.0.2.53
  netcleat network test web -o json | jq -r '.checks[] | select(.outcome == "failed") | .what'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := textOrJSON(format); err != nil {
				return err
			}
			if !doctor.MayAdmin() {
				return errors.New("network test needs root on the host: it attaches sandboxes")
			}
			for _, t := range targets {
				a, err := netip.ParseAddr(t)
				if err != nil {
					return fmt.Errorf("target %q: want an IP address", t)
				}
				o.Targets = append(o.Targets, a)
			}
			o.Network, o.Binary, o.Warn = args[0], besideOrNone(), warner(c)
			return tryNetwork(c, o, format == "json")
		},
	}
	f := c.Flags()
	f.StringArrayVar(&targets, "target", nil, "`address` outside the host that the sandboxes must reach; can be repeated")
	f.StringVarP(&format, "output", "o", "text", "text or json")
	f.StringVar(&o.Path, "cni-path", cniPath(), "where plugins are installed")
	confDir(c, &o.Places)
	return c
}

// tryNetwork prints what is found while it is found, or all of it as JSON.
func tryNetwork(c *cobra.Command, o trial.Options, asJSON bool) error { //nolint:revive // the flag
	out := c.OutOrStdout()
	o.Tell = func(k trial.Check) {
		if !asJSON {
			fmt.Fprintln(out, k)
		}
	}
	// Whoever reads the output may end, as may the session: the sandboxes are detached.
	signal.Ignore(unix.SIGPIPE)
	ctx, stop := signal.NotifyContext(c.Context(), unix.SIGHUP)
	defer stop()
	r, err := trial.Run(ctx, o)
	if asJSON {
		err = errors.Join(err, term.JSON(out, r))
	} else {
		for _, cause := range r.Causes {
			fmt.Fprintf(out, "root cause: %s\nfix: %s\n", cause.What, cause.Fix)
		}
	}
	if n := r.Failures(); n > 0 && err == nil {
		return failures(n)
	}
	return err
}

// failures is the error of a network of which some checks failed.
type failures int

func (n failures) Error() string { return term.Count(int(n), "check") + " failed" }
