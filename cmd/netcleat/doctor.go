package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/collect"
	"github.com/netcleat/netcleat/cmd/netcleat/doctor"
	"github.com/netcleat/netcleat/cmd/netcleat/reconcile"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
)

func doctorCommand() *cobra.Command {
	o := doctor.Options{Places: show.Defaults()}
	var fix, dryRun bool
	format := ""
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find problems and leftovers, and fix them",
		Long: `Find problems and leftovers of the host's container networks: missing kernel features,
sysctls and tools; configurations that are wrong or that an installed runtime cannot read;
missing plugins; attachments whose sandbox no longer exists; for all others what netcleat
explain checks, from the interface to the host's firewall; missing firewall rules; ranges
that are full; orphaned leases and bridge ports; entries in libcni's cache without a
namespace. --deep also runs each plugin's own CHECK.

Each finding has the command that fixes it. If it depends on something that only you can
know, a comment says so. --fix runs netcleat gc and netcleat reconcile, removes leaks that
are proven, and checks again; --dry-run previews it. What is not proven is reported and
kept.

The exit status is 0 without problems (notes and warnings do not count), 1 with problems, and
2 if doctor could not look: without root, or for an error of usage.`,
		Example: `  netcleat doctor
  netcleat doctor --deep -o json
  netcleat doctor --fix --dry-run
  netcleat doctor --fix`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := errors.Join(textOrJSON(format), mayLook()); err != nil {
				return err
			}
			var errs []error
			o.Tell = c.ErrOrStderr()
			o.Binary = besideOrNone()
			if fix || dryRun {
				errs = append(errs, mend(c, o, dryRun))
			}
			found := doctor.Examine(c.Context(), o)
			if format == "json" {
				errs = append(errs, term.JSON(c.OutOrStdout(), found))
			} else {
				doctor.Print(c.OutOrStdout(), found)
			}
			if n := doctor.Problems(found); n > 0 {
				errs = append(errs, problems(n))
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVar(&o.Deep, "deep", false, "also run each plugin's own CHECK of each attachment")
	c.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	c.Flags().BoolVar(&fix, "fix", false, "fix what is proven to be wrong, then check again")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only print what --fix would do")
	c.Flags().StringVar(&o.Path, "cni-path", cniPath(), "directory of the plugins")
	confDir(c, &o.Places)
	return c
}

// problems is the error of a doctor that has found some.
type problems int

func (n problems) Error() string { return term.Count(int(n), "problem") }

// mayLook returns an error without the privileges to see the host's networks.
func mayLook() error {
	if doctor.MayAdmin() {
		return nil
	}
	return errors.New("doctor needs root on the host: without it, little of what is wrong can be seen")
}

// exitCode is 1, but for a doctor that has not looked, and for a test that was not made.
func exitCode(c *cobra.Command, err error) int {
	const cannotLook = 2
	if n := problems(0); c.Name() == "doctor" && !errors.As(err, &n) {
		return cannotLook
	}
	if n := failures(0); c.Name() == "test" && !errors.As(err, &n) {
		return cannotLook
	}
	return 1
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
