package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/clusterd"
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

A network with driver overlay is removed from all hosts; those on which something is attached to it
keep it until then.

A network that netcleat network create did not create, and its bridge, belong to whoever
created it: --force removes its file and its empty lease directory. --force also removes a
network with leases that belong to no known attachment; the leases stay. With --force a
network that does not exist is no error.`,
		Example: `  netcleat network rm backend
  netcleat network rm web db`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Out, o.Warn = c.OutOrStdout(), warner(c)
			local, err := removeOverlays(c, o, args)
			if len(local) == 0 {
				return err
			}
			return errors.Join(err, remove.Run(c.Context(), o, local))
		},
	}
	c.Flags().BoolVarP(&o.Force, "force", "f", false, "also networks that netcleat network create did not create, or with leases")
	confDir(c, &o.Places)
	return c
}

// removeOverlays removes the networks that the cluster's daemon has made on this host,
// and returns the others.
func removeOverlays(c *cobra.Command, o remove.Options, names []string) (local []string, err error) {
	var errs []error
	for _, name := range names {
		ours, err := clusterd.IsMade(o.NetConf, name)
		if err == nil && !ours {
			local = append(local, name)
			continue
		}
		if err == nil {
			err = o.Unused(c.Context(), name)
		}
		if err == nil {
			err = undefineOverlay(c.Context(), o.NetConf, name)
		}
		if err == nil {
			fmt.Fprintln(o.Out, name)
		}
		errs = append(errs, err)
	}
	return local, errors.Join(errs...)
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
