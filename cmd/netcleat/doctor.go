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
		Short: "Look for what is wrong, and for what was left behind",
		Long: `Look for what is wrong with the host's container networks, and for what was left
behind: kernel features, sysctls and tools; configurations that cannot be read, and
plugins that are missing; attachments whose sandbox is gone or whose links are not as
they must be; firewall rules that are missing; leases and ports of bridges that are
nobody's; entries of libcni's cache without a namespace.

Each finding comes with the command that mends it; where that depends on what only you
know, a comment says on what. --fix runs netcleat gc and netcleat reconcile, removes
leaks that are proven, and looks again; --dry-run says what it would do. What is not
proven is left, and named. The exit status is 0 where there is no problem; notes and
warnings are none.`,
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
	c.Flags().BoolVar(&fix, "fix", false, "first mend what is proven to be wrong")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what --fix would do, and do nothing")
	c.Flags().StringVar(&o.Path, "cni-path", cniPath(), "where the plugins are")
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
