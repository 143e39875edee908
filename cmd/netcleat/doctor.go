package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/collect"
	"github.com/netcleat/netcleat/cmd/netcleat/doctor"
	"github.com/netcleat/netcleat/cmd/netcleat/reconcile"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

func doctorCommand() *cobra.Command {
	o := doctor.Options{Places: show.Defaults()}
	var fix, dryRun bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find problems and leftovers, and fix them",
		Long: `Find problems and leftovers of the host's container networks: missing kernel features,
sysctls and tools; unreadable configurations and missing plugins; attachments whose
sandbox no longer exists or whose links have changed; missing firewall rules; orphaned
leases and bridge ports; entries in libcni's cache without a namespace.

Each finding has the command that fixes it. If it depends on something that only you can
know, a comment says so. --fix runs netcleat gc and netcleat reconcile, removes leaks that
are proven, and checks again; --dry-run previews it. What is not proven is reported and
kept. The exit status is 0 without problems; notes and warnings do not count.`,
		Example: `  netcleat doctor
  netcleat doctor --fix --dry-run
  netcleat doctor --fix`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var errs []error
			o.Tell = c.ErrOrStderr()
			o.Binary = besideOrNone()
			if fix || dryRun {
				errs = append(errs, mend(c, o, dryRun))
			}
			if n := doctor.Print(c.OutOrStdout(), doctor.Examine(c.Context(), o)); n > 0 {
				errs = append(errs, fmt.Errorf("%d problems", n))
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVar(&fix, "fix", false, "fix what is proven to be wrong, then check again")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only print what --fix would do")
	c.Flags().StringVar(&o.Path, "cni-path", cniPath(), "directory of the plugins")
	confDir(c, &o.Places)
	return c
}

// mend is netcleat gc and netcleat reconcile, and then the removal of what is
// proven to be left.
func mend(c *cobra.Command, o doctor.Options, dryRun bool) error { //nolint:revive // the flag
	g := collect.Options{Journal: o.Journal, Out: c.OutOrStdout(), Tell: o.Tell, DryRun: dryRun, Plugins: collect.Plugins{Binary: o.Binary, Path: o.Path}}
	err := collect.Run(c.Context(), g)
	if !dryRun {
		err = errors.Join(err, reconcile.Run(c.Context(), reconcile.Options{Journal: o.Journal, Out: c.OutOrStdout(), Tell: o.Tell}))
	}
	return errors.Join(err, doctor.Fix(c.Context(), c.OutOrStdout(), doctor.Examine(c.Context(), o), dryRun))
}
