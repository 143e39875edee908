// Package frr writes the configuration with which FRR, a BGP daemon, programs the
// uplinks of overlay networks (EVPN).
package frr

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Conf is what the configuration is about.
type Conf struct {
	AS         uint32       // of all hosts
	Local      netip.Addr   // this host's address on the underlay
	Reflectors []netip.Addr // hosts that pass on what the others announce
	Clients    netip.Prefix // of the other hosts; only reflectors need it
}

// Check returns why it would not work.
func (c Conf) Check() error {
	switch {
	case c.AS == 0:
		return errors.New("as: 0 is none")
	case len(c.Reflectors) < 2:
		return errors.New("reflector: want two or more: while a single one restarts, all hosts' forwarding tables are empty")
	case c.reflects() && !c.Clients.IsValid():
		return errors.New("clients: missing; this host is a reflector, which has to know from which addresses the other hosts connect")
	}
	for i, a := range append(slices.Clone(c.Reflectors), c.Local) {
		switch {
		case !a.Is4():
			return fmt.Errorf("address %s: want IPv4: FRR announces no IPv6 addresses of VXLAN interfaces", a)
		case slices.Contains(c.Reflectors[:min(i, len(c.Reflectors))], a) && i < len(c.Reflectors):
			return fmt.Errorf("reflector %s: named twice", a)
		}
	}
	if c.Clients.IsValid() && (!c.Clients.Addr().Is4() || c.Clients.Masked() != c.Clients) {
		return fmt.Errorf("clients %s: want an IPv4 subnet", c.Clients)
	}
	return nil
}

func (c Conf) reflects() bool { return slices.Contains(c.Reflectors, c.Local) }

// String is the configuration, for /etc/frr/frr.conf.
func (c Conf) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "frr defaults traditional\nrouter bgp %d\n bgp router-id %s\n no bgp default ipv4-unicast\n", c.AS, c.Local)
	if c.reflects() {
		fmt.Fprintf(&b, " bgp cluster-id %s\n neighbor hosts peer-group\n neighbor hosts remote-as %d\n bgp listen range %s peer-group hosts\n", c.Reflectors[0], c.AS, c.Clients)
	}
	for _, r := range c.Reflectors {
		if r != c.Local {
			fmt.Fprintf(&b, " neighbor %s remote-as %d\n neighbor %[1]s timers connect 5\n", r, c.AS)
		}
	}
	b.WriteString(" address-family l2vpn evpn\n")
	if c.reflects() {
		b.WriteString("  neighbor hosts activate\n  neighbor hosts route-reflector-client\n")
	}
	for _, r := range c.Reflectors {
		if r != c.Local {
			fmt.Fprintf(&b, "  neighbor %s activate\n", r)
		}
	}
	b.WriteString("  advertise-all-vni\n exit-address-family\nexit\n")
	return b.String()
}
