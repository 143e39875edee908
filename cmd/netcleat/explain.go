package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/explain"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

func explainCommand() *cobra.Command {
	o := explain.Options{Places: show.Defaults()}
	var format string
	var pid int
	c := &cobra.Command{
		Use:   "explain CONTAINER|NETNS",
		Short: "Find out why a container's network does not work, and how to fix it",
		Long: `Compare, for each attachment of a container, what each plugin configured with the
kernel's state, from the interface in the sandbox out to the host's firewall. Then print
the root cause and the command that fixes it. Nothing is changed.

CONTAINER is a container's name, its ID or the beginning of one, a pod as NAMESPACE/NAME, or
the name of libcni's cache file. NETNS is the path of a network namespace. For attachments of other
suites only libcni's cache is known.

The exit status is 0 without problems; notes do not count.`,
		Example: `  netcleat explain shop/web
  netcleat explain /run/netns/web -o json`,
		Args: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("pid") {
				return cobra.NoArgs(c, args)
			}
			return cobra.ExactArgs(1)(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if pid > 0 {
				args = []string{fmt.Sprintf("/proc/%d/ns/net", pid)}
			}
			if err := textOrJSON(format); err != nil {
				return err
			}
			if o.Binary == "" {
				o.Binary = besideOrNone()
			}
			reports, err := explain.Container(c.Context(), o, args[0])
			if len(reports) == 0 {
				return err
			}
			print := explain.Print
			if format == "json" {
				print = explain.PrintJSON
			}
			err = errors.Join(err, print(c.OutOrStdout(), reports))
			if n := explain.Broken(reports); n > 0 {
				err = errors.Join(err, fmt.Errorf("%d of %d attachments do not work", n, len(reports)))
			}
			return err
		},
	}
	f := c.Flags()
	f.IntVar(&pid, "pid", 0, "`number` (PID) of a process of the container")
	f.StringVarP(&format, "output", "o", "text", "text or json")
	f.StringVar(&o.Binary, "plugins", "", "the plugin binary; by default the file cni beside this command, or what is installed")
	f.StringVar(&o.Path, "cni-path", cniPath(), "where plugins are installed")
	return c
}
