package main

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/frr"
)

func clusterFRRCommand() *cobra.Command {
	var f struct {
		as         uint32
		local      string
		reflectors []string
		clients    string
	}
	c := &cobra.Command{
		Use: "frr", Short: "Print a configuration of FRR for overlay networks with control evpn", Args: cobra.NoArgs,
		Long: `Print a configuration of FRR with which it programs the uplinks of overlay networks that have
"control": "evpn". Write it to /etc/frr/frr.conf, set bgpd=yes in /etc/frr/daemons, and restart
frr. Two hosts or more are route reflectors; on these, --local is one of the addresses of --reflector.`,
		Example: `  netcleat cluster frr --local 10.0.0.13 --reflector 10.0.0.11 --reflector 10.0.0.12
  netcleat cluster frr --local 10.0.0.11 --reflector 10.0.0.11 --reflector 10.0.0.12 --clients 10.0.0.0/24`,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			conf := frr.Conf{AS: f.as}
			if conf.Local, err = netip.ParseAddr(f.local); err != nil {
				return fmt.Errorf("local %q: want an IP address", f.local)
			}
			for _, s := range f.reflectors {
				a, err := netip.ParseAddr(s)
				if err != nil {
					return fmt.Errorf("reflector %q: want an IP address", s)
				}
				conf.Reflectors = append(conf.Reflectors, a)
			}
			if f.clients != "" {
				if conf.Clients, err = netip.ParsePrefix(f.clients); err != nil {
					return fmt.Errorf("clients %q: want a subnet", f.clients)
				}
			}
			if err := conf.Check(); err != nil {
				return err
			}
			_, err = fmt.Fprint(c.OutOrStdout(), conf)
			return err
		},
	}
	s := c.Flags()
	s.Uint32Var(&f.as, "as", 65000, "`number` of the autonomous system that all hosts are in")
	s.StringVar(&f.local, "local", "", "this host's `address` on the underlay")
	s.StringArrayVar(&f.reflectors, "reflector", nil, "`address` of a route reflector; can be repeated")
	s.StringVar(&f.clients, "clients", "", "`subnet` of the hosts; for reflectors only")
	return c
}
