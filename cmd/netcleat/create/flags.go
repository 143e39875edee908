package create

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/ipmath"
)

// Flags are what the command line says, as it says it.
type Flags struct {
	Name     string
	Driver   string   // the main plugin
	Subnets  []string // CIDR
	Ranges   []string // CIDR: parts of the subnets that addresses come from
	Gateways []string
	Aux      []string // addresses to leave out, each "NAME=ADDR" or "ADDR"
	Internal bool
	Names    Names
	IPv4     bool
	IPv6     bool
	Parent   string
	IPAM     string   // host-local, cluster-local, dhcp or none
	Options  []string // KEY=VALUE
	Labels   []string // KEY=VALUE, or KEY
}

// Names say whether containers of the network find each other by name.
type Names int

// The values of Names.
const (
	Usual Names = iota // with driver bridge, where the host has an address on it
	With
	Without
)

// Drivers are the main plugins that networks are made of.
var Drivers = []string{"bridge", "macvlan", "ipvlan", "ptp", "vlan", "dummy"}

// request is what the flags ask for, checked as far as that can be done without
// looking at the host.
type request struct {
	Name, Driver string
	Subnets      []*subnet
	Internal     bool
	Names        Names
	IPv4, IPv6   bool
	Parent       string
	IPAM         string
	Options      [][2]string
	Labels       show.Labels
}

// subnet is one that the containers get an address of.
type subnet struct {
	Prefix  netip.Prefix
	Range   netip.Prefix // what addresses come from; invalid: all of Prefix
	Gateway netip.Addr   // invalid: nobody said
	Omit    []netip.Addr // what nobody gets
}

// instead says what to do for drivers that only Docker has.
var instead = map[string]string{
	"host": "a container shares the host's network by --net host, which needs no network of its own",
	"none": "a container has no network by --net none, which needs no network of its own",
	"nat":  "want bridge, which masquerades",
}

// nameForm is what the specification lets a network be called.
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// maxName leaves room in the names of files that are made of the network's.
const maxName = 200

// modes are what runtimes take for something else than a network's name.
var modes = []string{"host", "none", "container", "default"}

func (f Flags) parse() (r request, err error) {
	r = request{Name: f.Name, Driver: f.Driver, Internal: f.Internal, Names: f.Names, IPv4: f.IPv4, IPv6: f.IPv6, Parent: f.Parent, IPAM: f.IPAM}
	switch {
	case !nameForm.MatchString(f.Name):
		return r, fmt.Errorf("network %q: a name begins with a letter or digit and goes on with these, '_', '.' and '-'", f.Name)
	case len(f.Name) > maxName:
		return r, fmt.Errorf("network %.20q…: longer than %d bytes", f.Name, maxName)
	case slices.Contains(modes, f.Name):
		return r, fmt.Errorf("network %q: runtimes take that for a mode, not for a network", f.Name)
	case instead[f.Driver] != "":
		return r, fmt.Errorf("driver %q: %s", f.Driver, instead[f.Driver])
	case !slices.Contains(Drivers, f.Driver):
		return r, fmt.Errorf("driver %q: want one of %s", f.Driver, strings.Join(Drivers, ", "))
	}
	for _, o := range f.Options {
		key, value, ok := strings.Cut(o, "=")
		if !ok || key == "" {
			return r, fmt.Errorf("option %q: want KEY=VALUE", o)
		}
		r.Options = append(r.Options, [2]string{key, value})
	}
	for _, l := range f.Labels {
		key, value, _ := strings.Cut(l, "=")
		if key == "" {
			return r, fmt.Errorf("label %q: want KEY=VALUE", l)
		}
		if r.Labels == nil {
			r.Labels = show.Labels{}
		}
		r.Labels[key] = value
	}
	if err := r.readSubnets(f); err != nil {
		return r, err
	}
	if err := r.checkIPAM(); err != nil {
		return r, err
	}
	return r, r.checkNames()
}

// checkNames settles whether the network has names.
func (r *request) checkNames() error {
	routed := r.Driver == "bridge" || r.Driver == "ptp"
	switch {
	case r.Names == Usual && r.Driver == "bridge" && r.IPAM != noIPAM:
		r.Names = With
	case r.Names == With && !routed:
		return fmt.Errorf("dns: the host has no address on a network of driver %s at which names could be answered: use bridge or ptp", r.Driver)
	case r.Names == With && r.IPAM == noIPAM:
		return errors.New("dns: containers without addresses of the network have no names: leave out --ipam-driver none")
	}
	return nil
}

// readSubnets reads the subnets, and finds each of the other addresses its own.
func (r *request) readSubnets(f Flags) error {
	for _, s := range f.Subnets {
		p, err := parseSubnet(s)
		if err != nil {
			return err
		}
		for _, o := range r.Subnets {
			if o.Prefix.Overlaps(p) {
				return fmt.Errorf("subnet %s: overlaps with subnet %s", p, o.Prefix)
			}
		}
		r.Subnets = append(r.Subnets, &subnet{Prefix: p})
	}
	for _, s := range f.Ranges {
		if err := r.addRange(s); err != nil {
			return err
		}
	}
	for _, s := range f.Gateways {
		if err := r.addGateway(s); err != nil {
			return err
		}
	}
	for _, s := range f.Aux {
		if err := r.omit(s); err != nil {
			return err
		}
	}
	return nil
}

// omit leaves an address out, which may have a name before it.
func (r *request) omit(s string) error {
	_, addr, named := strings.Cut(s, "=")
	if !named {
		addr = s
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return fmt.Errorf("aux-address %q: %w", s, err)
	}
	n := r.subnetOf(a)
	if n == nil {
		return fmt.Errorf("aux-address %s: in no --subnet", a)
	}
	n.Omit = append(n.Omit, a)
	return nil
}

// special are prefixes that no container can have an address of.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("::/16"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

func parseSubnet(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("subnet %q: want an address and a prefix length, such as 10.5.0.0/24", s)
	}
	switch {
	case p.Masked() != p:
		return p, fmt.Errorf("subnet %s: has host bits set: it would be %s", p, p.Masked())
	case p.Bits() > p.Addr().BitLen()-2:
		return p, fmt.Errorf("subnet %s: too small: want a prefix of at most %d bits", p, p.Addr().BitLen()-2)
	}
	for _, o := range special {
		if o.Overlaps(p) {
			return p, fmt.Errorf("subnet %s: has addresses of %s, which containers cannot have", p, o)
		}
	}
	return p, nil
}

// subnetOf returns the subnet that has the address, or nil.
func (r *request) subnetOf(a netip.Addr) *subnet {
	for _, n := range r.Subnets {
		if n.Prefix.Contains(a) {
			return n
		}
	}
	return nil
}

func (r *request) addRange(s string) error {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("ip-range %q: want an address and a prefix length, such as 10.5.0.128/25", s)
	}
	n := r.subnetOf(p.Addr())
	switch {
	case p.Masked() != p:
		return fmt.Errorf("ip-range %s: has host bits set: it would be %s", p, p.Masked())
	case n == nil || p.Bits() < n.Prefix.Bits():
		return fmt.Errorf("ip-range %s: not within a --subnet", p)
	case n.Range.IsValid():
		return fmt.Errorf("ip-range %s: subnet %s has %s already", p, n.Prefix, n.Range)
	}
	n.Range = p
	return nil
}

func (r *request) addGateway(s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return fmt.Errorf("gateway %q: want an IP address", s)
	}
	n := r.subnetOf(a)
	switch {
	case n == nil:
		return fmt.Errorf("gateway %s: in no --subnet", a)
	case n.Gateway.IsValid():
		return fmt.Errorf("gateway %s: subnet %s has %s already", a, n.Prefix, n.Gateway)
	case a == n.Prefix.Addr():
		return fmt.Errorf("gateway %s: the address of subnet %s itself", a, n.Prefix)
	case a.Is4() && a == ipmath.Last(n.Prefix):
		return fmt.Errorf("gateway %s: the broadcast address of subnet %s", a, n.Prefix)
	}
	n.Gateway = a
	return nil
}

// The plugins that give addresses. noIPAM leaves that to somebody else.
const (
	hostLocal    = "host-local"
	clusterLocal = "cluster-local"
	dhcp         = "dhcp"
	noIPAM       = "none"
)

// givers are the drivers that work with addresses from elsewhere.
var givers = map[string][]string{
	hostLocal:    Drivers,
	clusterLocal: {"bridge", "macvlan", "ipvlan", "vlan"},
	dhcp:         {"macvlan", "vlan"},
	noIPAM:       {"bridge", "macvlan", "ipvlan", "vlan"},
}

// ranged reports whether addresses come from ranges of the subnets.
func (r *request) ranged() bool { return r.IPAM == hostLocal || r.IPAM == clusterLocal }

func (r *request) checkIPAM() error {
	drivers, known := givers[r.IPAM]
	switch {
	case !known:
		return fmt.Errorf("ipam-driver %q: want host-local, cluster-local, dhcp or none", r.IPAM)
	case !slices.Contains(drivers, r.Driver):
		return fmt.Errorf("ipam-driver %s: driver %s works without it: want %s", r.IPAM, r.Driver, strings.Join(drivers, ", "))
	case r.IPAM == clusterLocal && (len(r.Subnets) == 0 || r.IPv6 && !slices.ContainsFunc(r.Subnets, func(n *subnet) bool { return n.Prefix.Addr().Is6() })):
		return fmt.Errorf("ipam-driver cluster-local: give each --subnet: it must be the same on all hosts")
	case !r.ranged() && (len(r.Subnets) > 0 || r.IPv6):
		return fmt.Errorf("ipam-driver %s: takes no --subnet and no --ipv6", r.IPAM)
	case r.IPAM == dhcp && r.Internal:
		return fmt.Errorf("internal: the DHCP server says whether there is a default route")
	case r.IPAM == hostLocal && !r.IPv4 && !r.IPv6 && len(r.Subnets) == 0:
		return fmt.Errorf("network %q: neither IPv4 nor IPv6: give --subnet, or --ipam-driver none", r.Name)
	}
	for _, n := range r.Subnets {
		if n.Prefix.Addr().Is4() && !r.IPv4 {
			return fmt.Errorf("subnet %s: IPv4 is turned off by --ipv4=false", n.Prefix)
		}
	}
	return nil
}
