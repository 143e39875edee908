package main

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/clusterd"
	"github.com/netcleat/netcleat/cmd/netcleat/graph"
	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

func graphCommand() *cobra.Command {
	places, format := show.Defaults(), ""
	c := &cobra.Command{
		Use:   "graph [NETWORK]",
		Short: "Draw the path from the host to each container",
		Long: `Draw the path from the host to each container: bridge or parent, both ends of each link
with their indexes, addresses and published ports; and the other hosts of overlay networks with
their blocks. Without NETWORK, all networks are drawn.`,
		Example: `  netcleat graph
  netcleat graph nat --format svg >nat.svg`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			all, err := show.Networks(c.Context(), places)
			if len(args) > 0 {
				n, ferr := show.FindNetwork(all, args[0])
				if ferr != nil {
					return errors.Join(ferr, err)
				}
				all = []show.Network{n}
			}
			hosts, herr := remotes(c.Context(), all)
			return errors.Join(graph.Draw(c.OutOrStdout(), all, hosts, format), err, herr)
		},
	}
	c.Flags().StringVar(&format, "format", "text", strings.Join(graph.Formats, ", "))
	confDir(c, &places)
	return c
}

// remotes returns the other hosts of overlay networks: those that this host forwards to,
// and with control etcd those that etcd knows, with their names and blocks.
func remotes(ctx context.Context, networks []show.Network) (all map[string][]graph.Remote, err error) {
	all = map[string][]graph.Remote{}
	programmed := false
	for _, n := range networks {
		c := n.VXLAN()
		if c == nil {
			continue
		}
		behind, err := overlay.Behind(c)
		if err != nil {
			return all, err
		}
		programmed = programmed || c.Control == vxlan.Etcd
		for _, a := range slices.SortedFunc(maps.Keys(behind), netip.Addr.Compare) {
			all[n.Name] = append(all[n.Name], graph.Remote{VTEP: a, Uplink: c.Name(), Forwarded: behind[a]})
		}
	}
	if !programmed {
		return all, nil
	}
	s, err := clusterd.ReadSettings(clusterd.DefaultSettings)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil // the daemon has others
	}
	if err != nil {
		return all, err
	}
	r, err := clusterd.Status(ctx, s)
	if err != nil {
		return all, err
	}
	for _, n := range networks {
		if c := n.VXLAN(); c != nil && c.Control == vxlan.Etcd {
			all[n.Name] = named(all[n.Name], r.Others(s.Host, n.Name), c.Name())
		}
	}
	return all, nil
}

// named adds what etcd knows of hosts.
func named(all []graph.Remote, owners []clusterd.OwnerReport, uplink string) []graph.Remote {
	for _, o := range owners {
		at, err := netip.ParseAddr(o.VTEP)
		if err != nil {
			continue // it has no uplink
		}
		i := slices.IndexFunc(all, func(r graph.Remote) bool { return r.VTEP == at && r.Host == "" })
		if i < 0 {
			i = len(all)
			all = append(all, graph.Remote{VTEP: at, Uplink: uplink})
		}
		all[i].Host, all[i].Blocks = o.Host, o.Blocks
	}
	return all
}
