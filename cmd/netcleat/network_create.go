package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/create"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/command"
)

// createHelp is the help text of network create.
const createHelp = `Create a network: write its conflist to the directory that runtimes read. Nothing else is
created: the bridge is created with the network's first container.

Without --subnet a free subnet is chosen. A subnet that overlaps with the host's addresses or
routes, or with another network in the directory, is rejected. With --parent the parent's
own LAN is allowed, and the host's addresses on it are not assigned to containers. A
configuration that the plugins would reject is not written.

Containers of a bridge network find each other by name and by alias (netcleat network connect
--alias), as on Docker's networks: the plugin dnsname answers at the gateway's address.
--no-dns leaves it out.

--internal omits masquerading, the default route and published ports: containers reach each
other and the host, but not external hosts by IPv4 or the network's IPv6 addresses. With
--no-dns the bridge has no address either, and they do not reach the host. They only lack a
route; no firewall rule enforces it. A container that may change its own routes (NET_ADMIN)
can get out on a host that forwards, and an interface with IPv6 can reach the bridge's
link-local address. With macvlan, ipvlan and vlan, the LAN and its IPv6 routers stay
reachable.

-d overlay creates the network once for all hosts of the cluster (docs/overlay.md): the cluster daemon
of each host, of which cluster.yaml names the directory of networks, writes the conflist there. It
needs --subnet, one or one of each family. Containers find those of other hosts by name, too.

-o accepts Docker's options com.docker.network.bridge.name, .bridge.enable_ip_masquerade,
.bridge.enable_icc, .bridge.host_binding_ipv4 and .driver.mtu, its macvlan_mode,
ipvlan_mode, ipvlan_flag and parent, and the keys of the driver's plugin. Keys of chained
plugins are PLUGIN.KEY, such as portmap.snat. With host_binding_ipv4, ports are reachable only
at that address, even if they are published at another one, and not by IPv6.`

func networkCreateCommand() *cobra.Command {
	o, f, dryRun := create.Options{Places: show.Defaults(), Command: command.Usual()}, create.Flags{}, false
	var names namesFlags
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a network, like docker network create",
		Long:  createHelp,
		Example: `  netcleat network create web
  netcleat network create db --subnet 10.5.0.0/24 --ip-range 10.5.0.128/25 --gateway 10.5.0.254
  netcleat network create dual --ipv6 -o com.docker.network.driver.mtu=1400
  netcleat network create backend --internal
  netcleat network create lan -d macvlan --parent eth0 --subnet 192.168.1.0/24 --gateway 192.168.1.1
  netcleat network create try --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f.Name = args[0]
			f.Names = names.value(c)
			o.Warn = warner(c)
			switch {
			case f.Driver == overlayDriver && dryRun:
				return errors.New("driver overlay: has no preview, since the cluster chooses the network's VNI")
			case f.Driver == overlayDriver:
				return createOverlay(c, f)
			case dryRun:
				return previewNetwork(c, o, f)
			}
			if _, err := create.Run(c.Context(), o, f); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), f.Name)
			return nil
		},
	}
	createFlags(c, &f)
	names.flags(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print the conflist without writing it")
	confDir(c, &o.Places)
	return c
}

// namesFlags say whether the network has names, either way.
type namesFlags struct{ on, off bool }

func (n *namesFlags) flags(c *cobra.Command) {
	c.Flags().BoolVar(&n.on, "dns", true, "containers find each other by name; off by default with -d ptp, impossible with other drivers")
	c.Flags().BoolVar(&n.off, "no-dns", false, "like --dns=false")
	c.MarkFlagsMutuallyExclusive("dns", "no-dns")
}

func (n *namesFlags) value(c *cobra.Command) create.Names {
	switch {
	case n.off || !n.on:
		return create.Without
	case c.Flags().Changed("dns"):
		return create.With
	}
	return create.Usual
}

func previewNetwork(c *cobra.Command, o create.Options, f create.Flags) error {
	text, err := create.Preview(c.Context(), o, f)
	if err == nil {
		_, err = c.OutOrStdout().Write(text)
	}
	return err
}

// createFlags are the flags that say what the network is to be.
func createFlags(c *cobra.Command, f *create.Flags) {
	s := c.Flags()
	s.StringVarP(&f.Driver, "driver", "d", "bridge", "bridge, macvlan, ipvlan, ptp, vlan, dummy or overlay")
	s.StringArrayVar(&f.Subnets, "subnet", nil, "`CIDR` that containers get an address of; may be given again, for IPv6 or for a second address")
	s.StringArrayVar(&f.Ranges, "ip-range", nil, "`CIDR`: the part of a subnet that addresses come from")
	s.StringArrayVar(&f.Gateways, "gateway", nil, "`IP` of a subnet's gateway; by default its first address")
	s.StringArrayVar(&f.Aux, "aux-address", nil, "`[NAME=]IP` that no container gets")
	s.BoolVar(&f.Internal, "internal", false, "without a way out, see above")
	s.BoolVar(&f.IPv4, "ipv4", true, "choose an IPv4 subnet where none is given")
	s.BoolVar(&f.IPv6, "ipv6", false, "choose an IPv6 subnet where none is given")
	s.StringVar(&f.Parent, "parent", "", "`interface` of the host that macvlan, ipvlan and vlan are made on")
	s.StringVar(&f.IPAM, "ipam-driver", "host-local", "host-local, cluster-local (unique across hosts; needs --subnet), dhcp (macvlan and vlan), or none: containers bring their addresses")
	s.StringArrayVar(&f.Labels, "label", nil, "`KEY=VALUE` that netcleat network ls can filter by; can be repeated")
	s.StringArrayVarP(&f.Options, "opt", "o", nil, "`KEY=VALUE`, see above")
}
