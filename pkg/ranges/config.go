package ranges

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

// Config is what a call needs to know. For DEL and GC it has the directory and
// whether to reclaim, and no more.
type Config struct {
	dir        string // of the network's leases
	sets       []Set
	requested  []netip.Addr
	routes     []*types.Route
	resolvConf string
	reclaim    bool // what is provably dead
	statusPool bool // STATUS fails where no address is free

	// Owned returns the part of the sets that this host may hand out. It is called
	// while the leases are locked. nil is all.
	Owned func(sets []Set) ([]Set, error)

	// Pair returns the address of set to that belongs to an address of set from; an
	// attachment has both or none. nil: sets are independent of each other.
	Pair func(from, to int, a netip.Addr) (netip.Addr, bool)
}

// Dir is the directory of the network's leases.
func (c *Config) Dir() string { return c.dir }

// Sets are the range sets, in the order of the addresses in the result.
func (c *Config) Sets() []Set { return c.sets }

// Document is the configuration as it is written.
type Document struct {
	IPAM *IPAM `json:"ipam"`
	Asked
}

// Asked is what the runtime and the user ask for in one call.
type Asked struct {
	RuntimeConfig struct {
		IPRanges []Set       `json:"ipRanges"`
		IPs      []requested `json:"ips"`
	} `json:"runtimeConfig"`
	Args struct {
		CNI struct {
			IPs []requested `json:"ips"`
		} `json:"cni"`
	} `json:"args"`
}

// IPAM is the ipam section.
type IPAM struct {
	addrRange
	Routes     []*types.Route `json:"routes"`
	ResolvConf string         `json:"resolvConf"`
	Ranges     []Set          `json:"ranges"`
	Reclaim    *bool          `json:"reclaim"`
	StatusPool bool           `json:"statusPool"`
}

// requested is an address somebody asks for, with or without a prefix length,
// which says nothing.
type requested struct{ addr }

// UnmarshalJSON implements json.Unmarshaler.
func (r *requested) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s == nil || *s == "" {
		return cnierr.Config("cannot understand ip: IP <nil> not v4 nor v6")
	}
	return cnierr.With(cnierr.InvalidConfig, r.parse(*s))
}

func (r *requested) parse(s string) error {
	a, err := netip.ParseAddr(s)
	if strings.Contains(s, "/") {
		var p netip.Prefix
		p, err = netip.ParsePrefix(s)
		a = p.Addr()
	}
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return fmt.Errorf("invalid IP address %s", s)
	}
	r.Addr = a
	return nil
}

// ForRemoval is what DEL and GC need to know. They do without the rest of the
// configuration.
func ForRemoval(c *plugin.Call) Config {
	return Config{dir: lease.DirOf(c.Conf.IPAM.DataDir, c.Conf.Name), reclaim: c.Removing() && mayReclaim(c)}
}

// Config checks what is written.
func (n *Document) Config(c *plugin.Call) (Config, error) {
	conf := ForRemoval(c)
	if n.IPAM == nil {
		return conf, cnierr.Config("IPAM config missing 'ipam' key")
	}
	conf.routes, conf.resolvConf, conf.statusPool = n.IPAM.Routes, n.IPAM.ResolvConf, n.IPAM.StatusPool
	conf.reclaim = n.IPAM.Reclaim == nil || *n.IPAM.Reclaim
	var err error
	if conf.sets, err = n.sets(c.Conf.CNIVersion); err != nil {
		return conf, cnierr.With(cnierr.InvalidConfig, err)
	}
	if err := c.CheckDataDir(c.Conf.IPAM.DataDir); err != nil && c.Conf.IPAM.DataDir != "" {
		return conf, err
	}
	conf.requested, err = n.requests(c)
	return conf, err
}

// mayReclaim reads the one key that removing respects. In doubt nothing is
// reclaimed.
func mayReclaim(c *plugin.Call) bool {
	var n struct {
		IPAM struct {
			Reclaim *bool `json:"reclaim"`
		} `json:"ipam"`
	}
	err := c.Decode(&n)
	return err == nil && (n.IPAM.Reclaim == nil || *n.IPAM.Reclaim)
}

// sets returns the range sets in the order of the addresses in the result: the
// runtime's, then the one of the old spelling, then the list's.
func (n *Document) sets(version string) ([]Set, error) {
	all := n.RuntimeConfig.IPRanges
	if n.IPAM.Subnet.IsValid() {
		all = append(all, Set{n.IPAM.addrRange})
	}
	all = append(all, n.IPAM.Ranges...)
	if len(all) == 0 {
		return nil, fmt.Errorf("no IP ranges specified")
	}
	ofFamily := map[int]int{}
	for i, s := range all {
		if err := s.complete(); err != nil {
			return nil, fmt.Errorf("invalid range set %d: %w", i, err)
		}
		ofFamily[s[0].Start.BitLen()]++
	}
	if (ofFamily[32] > 1 || ofFamily[128] > 1) && !semver.AtLeast(version, "0.3.0") {
		return nil, fmt.Errorf("CNI version %v does not support more than 1 address per family", version)
	}
	for i := range all {
		for j := range all[:i] {
			if all[j].overlaps(all[i]) {
				return nil, fmt.Errorf("range set %d overlaps with %d", j, i)
			}
		}
	}
	return all, nil
}

// requests returns the addresses asked for, each once. CNI_ARGS does not count
// where args has addresses (CONVENTIONS.md).
func (n *Document) requests(c *plugin.Call) ([]netip.Addr, error) {
	if c.Verb != plugin.Add {
		return nil, nil
	}
	if err := c.CheckArgs("IP"); err != nil {
		return nil, err
	}
	asked := n.Args.CNI.IPs
	if ip := c.Arg("IP"); ip != "" && len(asked) == 0 {
		var r requested
		if err := r.parse(ip); err != nil {
			return nil, cnierr.Env("ARGS: error parsing value of pair %q: %w", "IP="+ip, err)
		}
		asked = append(asked, r)
	}
	var all []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, r := range append(asked, n.RuntimeConfig.IPs...) {
		if !seen[r.Addr] {
			all = append(all, r.Addr)
		}
		seen[r.Addr] = true
	}
	return all, nil
}
