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
		Use:     "rm NETWORK…",
		Aliases: []string{"remove"},
		Short:   "Remove networks without attachments",
		Long: `Remove networks without attachments: their files and what they left on the host. That is
the bridge, if it has no ports and no other addresses, and an empty lease directory.

A network that netcleat network create did not create, and its bridge, belong to whoever
created it: --force removes its file and its empty lease directory. --force also removes a
network with leases that belong to no known attachment; the leases stay. With --force a
network that does not exist is no error.`,
		Example: `  netcleat network rm backend
  netcleat network rm web db`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Out, o.Warn = c.OutOrStdout(), warner(c)
			return remove.Run(c.Context(), o, args)
		},
	}
	c.Flags().BoolVarP(&o.Force, "force", "f", false, "also networks that netcleat network create did not create, or with leases")
	confDir(c, &o.Places)
	return c
}

func networkPruneCommand() *cobra.Command {
	o, force := remove.Options{Places: show.Defaults()}, false
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove all networks of netcleat network create without attachments",
		Long: `Remove all networks without attachments that netcleat network create created, like netcleat
network rm. Other files are never touched: create marks its own with the key
"netcleat.dev/made-by", which runtimes ignore.

It asks for confirmation. Without a terminal it needs --force.`,
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
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask for confirmation")
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
