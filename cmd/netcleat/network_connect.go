package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/connect"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

// which says which container a command is for.
type which struct {
	netns string
	pid   int
}

// flags adds the ways to name a container other than by an argument.
func (w *which) flags(c *cobra.Command) {
	c.Flags().StringVar(&w.netns, "netns", "", "`path` of the container's network namespace")
	c.Flags().IntVar(&w.pid, "pid", 0, "`number` (PID) of a process of the container")
	c.MarkFlagsMutuallyExclusive("netns", "pid")
	c.Args = w.args
}

// args checks that NETWORK is given, and the container in one way.
func (w *which) args(c *cobra.Command, args []string) error {
	flag := c.Flags().Changed("netns") || c.Flags().Changed("pid")
	switch {
	case len(args) == 0:
		return errors.New("want NETWORK CONTAINER")
	case len(args) > 2:
		return fmt.Errorf("%d arguments: want NETWORK CONTAINER", len(args))
	case len(args) == 1 && !flag:
		return errors.New("want a CONTAINER, --netns or --pid")
	case len(args) == 2 && flag:
		return errors.New("want one of CONTAINER, --netns and --pid")
	}
	return nil
}

// open opens the container's network namespace, and returns what people call the
// container, where that is known.
func (w *which) open(c *cobra.Command, p show.Places, args []string) (s *connect.Sandbox, name string, err error) {
	switch {
	case w.netns != "":
		if slices.Contains([]string{"/run/netns", "/var/run/netns"}, filepath.Dir(w.netns)) { // those of ip netns
			name = filepath.Base(w.netns)
		}
		s, err = connect.At(w.netns)
		return s, name, err
	case len(args) < 2:
		s, err = connect.Of(w.pid)
		return s, "", err
	}
	rows, err := show.Rows(p)
	found, ferr := show.FindContainer(rows, args[1])
	if ferr != nil {
		return nil, "", errors.Join(fmt.Errorf("%w; --pid and --netns name containers that no network is attached to", ferr), err)
	}
	if err != nil {
		warner(c)("not everything could be read: %v", err)
	}
	if found[0].Netns == "" {
		return nil, "", fmt.Errorf("container %s: its network namespace is not known: use --pid or --netns", args[1])
	}
	s, err = connect.At(found[0].Netns)
	return s, cmp.Or(found[0].Name, found[0].Pod), err
}

func networkConnectCommand() *cobra.Command {
	o, w, r := connect.Options{Places: show.Defaults()}, which{}, connect.Request{}
	c := &cobra.Command{
		Use:   "connect NETWORK [CONTAINER]",
		Short: "Connect a running container to a network",
		Long: `Connect a running container to another network: it gets one more interface, with the library
and the plugins that runtimes use.

Existing interfaces and routes are not changed. If the container has a default route, the
network adds none of that family: as with Docker, the gateway is that of the first network
that has one. A network that changes the container's routes anyway is rolled back.
/etc/resolv.conf and /etc/hosts belong to the runtime, and are not changed.

CONTAINER is a name, a pod, an ID or the beginning of one, as netcleat ls shows them. A
container without any network, such as one of --net none, is named by --netns or --pid.

netcleat ls shows the container by a name derived from its network namespace. Its runtime does
not know about the connection: after the container has exited, netcleat gc removes the
leftovers.`,
		Example: `  netcleat network connect db web
  netcleat network connect db --pid $(docker inspect -f '{{.State.Pid}}' api) --ip 10.5.0.200 --alias api
  netcleat network connect dual --netns /run/netns/web --ifname back0 --publish 5432:5432`,
		RunE: func(c *cobra.Command, args []string) (err error) {
			r.Network = args[0]
			s, name, err := w.open(c, o.Places, args)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			r.Name = name
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
	c.Flags().StringArrayVar(&r.Aliases, "alias", nil, "another `name` of the container on the network, which others may share; can be repeated")
	c.Flags().StringArrayVarP(&r.Publish, "publish", "p", nil, "`[IP:]HOSTPORT:PORT[/PROTOCOL]` to publish; can be repeated")
	c.Flags().StringVar(&o.Path, "cni-path", cniPath(), "where plugins are installed")
	confDir(c, &o.Places)
	return c
}

func networkDisconnectCommand() *cobra.Command {
	o, w, r := connect.Options{Places: show.Defaults()}, which{}, connect.Request{}
	c := &cobra.Command{
		Use:   "disconnect NETWORK [CONTAINER]",
		Short: "Disconnect a container from a network",
		Long: `Detach a container from a network to which netcleat network connect has connected it, with the
configuration of that time. Attachments of its runtime must be removed by the runtime.`,
		Example: `  netcleat network disconnect db web
  netcleat network disconnect db --pid $(docker inspect -f '{{.State.Pid}}' api)`,
		RunE: func(c *cobra.Command, args []string) (err error) {
			s, _, err := w.open(c, o.Places, args)
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
