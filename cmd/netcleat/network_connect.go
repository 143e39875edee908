package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/connect"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

// which names the container of a command.
type which struct {
	netns string
	pid   int
}

func (w *which) flags(c *cobra.Command) {
	c.Flags().StringVar(&w.netns, "netns", "", "`path` of the container's network namespace")
	c.Flags().IntVar(&w.pid, "pid", 0, "`number` (PID) of a process of the container")
	c.MarkFlagsOneRequired("netns", "pid")
	c.MarkFlagsMutuallyExclusive("netns", "pid")
}

func (w *which) open() (*connect.Sandbox, error) {
	if w.netns != "" {
		return connect.At(w.netns)
	}
	return connect.Of(w.pid)
}

func networkConnectCommand() *cobra.Command {
	o, w, r := connect.Options{Places: show.Defaults()}, which{}, connect.Request{}
	c := &cobra.Command{
		Use:   "connect NETWORK (--netns PATH | --pid NUMBER)",
		Short: "Connect a running container to a network",
		Long: `Connect a running container to another network: it gets one more interface, with the library
and the plugins that runtimes use.

Existing interfaces and routes are not changed. If the container has a default route, the
network adds none of that family: as with Docker, the gateway is that of the first network
that has one. A network that changes the container's routes anyway is rolled back.
/etc/resolv.conf and /etc/hosts belong to the runtime, and are not changed.

netcleat ls shows the container by a name derived from its network namespace. Its runtime does
not know about the connection: after the container has exited, netcleat gc removes the
leftovers.`,
		Example: `  netcleat network connect db --netns /run/netns/web
  netcleat network connect db --pid $(docker inspect -f '{{.State.Pid}}' api) --ip 10.5.0.200
  netcleat network connect dual --netns /run/netns/web --ifname back0 --publish 5432:5432`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			r.Network = args[0]
			s, err := w.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			o.Warn = warner(c)
			got, err := connect.Connect(c.Context(), o, s, r)
			if err != nil {
				return err
			}
			fmt.Fprint(c.OutOrStdout(), got.IfName)
			for _, a := range got.Addresses {
				fmt.Fprint(c.OutOrStdout(), " ", a)
			}
			fmt.Fprintln(c.OutOrStdout())
			return nil
		},
	}
	w.flags(c)
	c.Flags().StringVar(&r.IfName, "ifname", "", "`name` of the interface in the container; default: the first unused one of eth0, eth1 and so on")
	c.Flags().StringArrayVar(&r.IPs, "ip", nil, "`address` for the container; can be repeated")
	c.Flags().StringArrayVarP(&r.Publish, "publish", "p", nil, "`[IP:]HOSTPORT:PORT[/PROTOCOL]` to publish; can be repeated")
	c.Flags().StringVar(&o.Path, "cni-path", cniPath(), "where plugins are installed")
	confDir(c, &o.Places)
	return c
}

func networkDisconnectCommand() *cobra.Command {
	o, w, r := connect.Options{Places: show.Defaults()}, which{}, connect.Request{}
	c := &cobra.Command{
		Use:   "disconnect NETWORK (--netns PATH | --pid NUMBER)",
		Short: "Disconnect a container from a network",
		Long: `Detach a container from a network to which netcleat network connect has connected it, with the
configuration of that time. Attachments of its runtime must be removed by the runtime.`,
		Example: `  netcleat network disconnect db --netns /run/netns/web
  netcleat network disconnect db --pid $(docker inspect -f '{{.State.Pid}}' api)`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			s, err := w.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			o.Warn = warner(c)
			r.Network = args[0]
			return connect.Disconnect(c.Context(), o, s, r)
		},
	}
	w.flags(c)
	c.Flags().StringVar(&r.IfName, "ifname", "", "`name` of the interface in the container, if it has several")
	c.Flags().StringVar(&o.Path, "cni-path", cniPath(), "where plugins are installed")
	confDir(c, &o.Places)
	return c
}

// warner tells what is no reason to stop.
func warner(c *cobra.Command) func(string, ...any) {
	return func(format string, args ...any) { fmt.Fprintf(c.ErrOrStderr(), "netcleat: "+format+"\n", args...) }
}
