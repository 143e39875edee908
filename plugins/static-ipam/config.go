package static

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

// config is what ADD hands out.
type config struct {
	Addresses []address
	Routes    []*types.Route
	DNS       types.DNS
}

type address struct {
	Prefix  netip.Prefix // host bits kept
	Gateway netip.Addr   // invalid: none
}

// document is the configuration as it is written.
type document struct {
	IPAM *struct {
		Routes    []*types.Route `json:"routes"`
		Addresses []struct {
			Address string `json:"address"`
			Gateway string `json:"gateway"`
		} `json:"addresses"`
		DNS types.DNS `json:"dns"`
	} `json:"ipam"`
	RuntimeConfig struct {
		IPs []string `json:"ips"`
	} `json:"runtimeConfig"`
	Args struct {
		CNI struct {
			IPs []string `json:"ips"`
		} `json:"cni"`
	} `json:"args"`
}

// parse reads the configuration. The runtime's addresses (capability ips, or
// else args.cni.ips) take the place of the configured ones; those of CNI_ARGS
// join them.
func parse(c *plugin.Call) (config, error) {
	var doc document
	if err := c.Decode(&doc); err != nil {
		return config{}, err
	}
	if doc.IPAM == nil {
		return config{}, cnierr.Config("IPAM config missing 'ipam' key")
	}
	if err := c.CheckArgs("IP", "GATEWAY"); err != nil {
		return config{}, err
	}
	conf := config{Routes: doc.IPAM.Routes, DNS: doc.IPAM.DNS}
	var err error
	if conf.Addresses, err = doc.addresses(c.Arg("IP")); err != nil {
		return config{}, err
	}
	if err := conf.setGateways(c.Arg("GATEWAY")); err != nil {
		return config{}, err
	}
	if conf.Addresses, err = distinct(conf.Addresses); err != nil {
		return config{}, err
	}
	if err := checkCount(c.Conf.CNIVersion, conf.Addresses); err != nil {
		return config{}, err
	}
	return conf, checkRoutes(conf.Routes)
}

func (d *document) addresses(argIP string) ([]address, error) {
	for _, list := range [][]string{d.RuntimeConfig.IPs, d.Args.CNI.IPs} {
		if len(list) > 0 {
			return parseAll(list, "an entry in the 'ips' field is NOT in CIDR notation, got: '%s'")
		}
	}
	all := make([]address, 0, len(d.IPAM.Addresses))
	for i, a := range d.IPAM.Addresses {
		p, ok := parsePrefix(a.Address)
		if !ok {
			return nil, cnierr.Config("the 'address' field is expected to be in CIDR notation, got: '%s'", a.Address)
		}
		entry := address{Prefix: p}
		if a.Gateway != "" {
			if entry.Gateway, ok = parseGateway(a.Gateway); !ok || entry.Gateway.Is4() != p.Addr().Is4() {
				return nil, cnierr.Config("invalid address %d: %s: invalid gateway address: %s", i, p, a.Gateway)
			}
		}
		all = append(all, entry)
	}
	if argIP == "" {
		return all, nil
	}
	more, err := parseAll(strings.Split(argIP, ","), "the 'ip' field is expected to be in CIDR notation, got: '%s'")
	return append(all, more...), err
}

func parseAll(list []string, message string) ([]address, error) {
	all := make([]address, 0, len(list))
	for _, s := range list {
		p, ok := parsePrefix(strings.TrimSpace(s))
		if !ok {
			return nil, cnierr.Config(message, s)
		}
		all = append(all, address{Prefix: p})
	}
	return all, nil
}

// parsePrefix reads an address that an interface can have. The length may begin
// with zeros, as to package net.
func parsePrefix(s string) (netip.Prefix, bool) {
	ip, length, _ := strings.Cut(s, "/")
	for len(length) > 1 && length[0] == '0' {
		length = length[1:]
	}
	p, err := netip.ParsePrefix(ip + "/" + length)
	a := p.Addr()
	return p, err == nil && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast()
}

// parseGateway reads a gateway. An unspecified one says that there is none, which
// keeps plugins from choosing one themselves.
func parseGateway(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	return a, err == nil && a.Zone() == "" && !a.Is4In6() && !a.IsMulticast()
}

// setGateways gives each gateway of CNI_ARGS to the addresses whose subnet it is
// in.
func (c *config) setGateways(arg string) error {
	if arg == "" {
		return nil
	}
	for s := range strings.SplitSeq(arg, ",") {
		gw, ok := parseGateway(s)
		if !ok {
			return cnierr.Config("invalid gateway address: %s", s)
		}
		for i := range c.Addresses {
			if c.Addresses[i].Prefix.Contains(gw) {
				c.Addresses[i].Gateway = gw
			}
		}
	}
	return nil
}

// distinct drops repetitions: a runtime may ask for what is configured already.
func distinct(all []address) ([]address, error) {
	var some []address
	for _, a := range all {
		i := slices.IndexFunc(some, func(o address) bool { return o.Prefix.Addr() == a.Prefix.Addr() })
		if i >= 0 && some[i].Prefix != a.Prefix {
			return nil, cnierr.Config("address %s is also given as %s", a.Prefix, some[i].Prefix)
		}
		if i < 0 {
			some = append(some, a)
		}
	}
	return some, nil
}

// checkCount enforces what results before 0.3.0 can hold.
func checkCount(version string, all []address) error {
	v4 := 0
	for _, a := range all {
		if a.Prefix.Addr().Is4() {
			v4++
		}
	}
	if !semver.AtLeast(version, "0.3.0") && (v4 > 1 || len(all)-v4 > 1) {
		return cnierr.Config("CNI version %s does not support more than 1 address per family", version)
	}
	return nil
}

func checkRoutes(routes []*types.Route) error {
	for i, r := range routes {
		switch {
		case r == nil || r.Dst.IP == nil:
			return cnierr.Config("route %d: no dst", i)
		case r.GW != nil && (r.GW.To4() == nil) != (r.Dst.IP.To4() == nil):
			return cnierr.Config("route %d: dst %s and gw %s are of different families", i, &r.Dst, r.GW)
		}
	}
	return nil
}
