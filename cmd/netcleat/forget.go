package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/collect"
	"github.com/netcleat/netcleat/cmd/netcleat/forget"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/evidence"
)

// containerID returns the ID of the container of that name on the network. What is not
// known by name is an ID: of a lost record, only the user knows it.
func containerID(p show.Places, network, name string) string {
	rows, _ := show.Rows(p) // what cannot be read is what forget is for
	found, err := show.FindContainer(show.Of(rows, network), name)
	if err != nil {
		return name
	}
	return found[0].Container
}

func forgetCommand() *cobra.Command {
	o, force := forget.Options{Places: show.Defaults()}, false
	var plugins collect.Plugins
	c := &cobra.Command{
		Use:   "forget NETWORK CONTAINER",
		Short: "Remove everything of a container that cannot be proven dead",
		Long: `Remove everything of a container on a network: links, rules, published ports, host-local
addresses and records, including unreadable ones.

netcleat gc only removes what is provably dead. Use this command for leftovers that gc
keeps, because nothing proves that their container no longer exists or because its record
is lost. If the container is running, it loses its network. CONTAINER is its ID, the
beginning of the ID, or its name.

It shows what is known about the container and asks for confirmation. Without a terminal it
needs --force.`,
		Example: `  netcleat forget backend 4f2a9c --force`,
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			o.Out, o.Warn, o.Plugins = c.OutOrStdout(), warner(c), plugins
			if o.Plugins.Binary == "" {
				o.Plugins.Binary = besideOrNone()
			}
			id := containerID(o.Places, args[0], args[1])
			o.Confirm = func(v evidence.Verdict) error {
				if force {
					return nil
				}
				return ask(c, fmt.Sprintf("Container %s is %s (%s). Remove what is left of it on network %s?", id, v.State, v.Why, args[0]))
			}
			return forget.Run(c.Context(), o, args[0], id)
		},
	}
	f := c.Flags()
	f.BoolVarP(&force, "force", "f", false, "do not ask")
	f.StringVar(&plugins.Binary, "plugins", "", "the plugin binary; by default the file cni beside this command, or what is installed")
	f.StringVar(&plugins.Path, "cni-path", cniPath(), "where plugins are installed")
	confDir(c, &o.Places)
	return c
}
