package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/remove"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

func networkRmCommand() *cobra.Command {
	o := remove.Options{Places: show.Defaults()}
	c := &cobra.Command{
		Use:   "rm NETWORK…",
		Short: "Remove networks that nothing is attached to",
		Long: `Remove networks that nothing is attached to: their files, and what they left on the
host, which is the bridge, where it has no ports and no other addresses, and the directory
of leases, where it has none.

A network that netcleat network create did not make is whoever made it's, and so is its
bridge: --force removes the file and the empty directory of leases. It also removes a
network of which an address is held that no attachment explains; the lease stays.`,
		Example: `  netcleat network rm backend
  netcleat network rm web db`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Out, o.Warn = c.OutOrStdout(), warner(c)
			return remove.Run(c.Context(), o, args)
		},
	}
	c.Flags().BoolVarP(&o.Force, "force", "f", false, "also what netcleat network create did not make, and where addresses are held")
	confDir(c, &o.Places)
	return c
}

func networkPruneCommand() *cobra.Command {
	o, force := remove.Options{Places: show.Defaults()}, false
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove all networks that netcleat network create made and nothing is attached to",
		Long: `Remove all networks that netcleat network create made and that nothing is attached to,
as netcleat network rm does. Files of others are never touched: create writes the key
"netcleat.dev/made-by" into its own, which runtimes ignore.

It asks before, and without a terminal to ask on it does nothing, unless there is --force.`,
		Example: `  netcleat network prune --force`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Out, o.Warn = c.OutOrStdout(), warner(c)
			confirm := func(names []string) error { return ask(c, "Remove "+strings.Join(names, ", ")+"?") }
			if force {
				confirm = func([]string) error { return nil }
			}
			return remove.Prune(c.Context(), o, confirm)
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	confDir(c, &o.Places)
	return c
}

// ask asks a question on the terminal. No other answer than yes is one.
func ask(c *cobra.Command, question string) error {
	if _, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS); err != nil {
		return errors.New("standard input is no terminal to ask on: --force goes on without")
	}
	fmt.Fprint(c.ErrOrStderr(), question, " [y/N] ")
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); err != nil || a != "y" && a != "yes" {
		return errors.New("nothing is removed")
	}
	return nil
}
