package hostlocal

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

// defaultDataDir is the reference's.
const defaultDataDir = "/var/lib/cni/networks"

// config is what a call needs to know. For DEL and GC it has the directory and
// whether to reclaim, and no more.
type config struct {
	dir        string // of the network's leases
	sets       []rangeSet
	requested  []netip.Addr
	routes     []*types.Route
	resolvConf string
	reclaim    bool // what is provably dead
	statusPool bool // STATUS fails where no address is free
}

// netConf is the configuration as it is written.
type netConf struct {
	IPAM          *ipamConf `json:"ipam"`
	RuntimeConfig struct {
		IPRanges []rangeSet  `json:"ipRanges"`
		IPs      []requested `json:"ips"`
	} `json:"runtimeConfig"`
	Args struct {
		CNI struct {
			IPs []requested `json:"ips"`
		} `json:"cni"`
	} `json:"args"`
}

type ipamConf struct {
	addrRange
	Routes     []*types.Route `json:"routes"`
	ResolvConf string         `json:"resolvConf"`
	Ranges     []rangeSet     `json:"ranges"`
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

func parse(c *plugin.Call) (config, error) {
	conf := config{dir: leaseDir(c)}
	if c.Removing() {
		conf.reclaim = mayReclaim(c)
		return conf, nil
	}
	var n netConf
	if err := c.Decode(&n); err != nil {
		return conf, err
	}
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

// leaseDir returns where the network's leases are. Its name is checked to be one
// part of a path.
func leaseDir(c *plugin.Call) string {
	dir := c.Conf.IPAM.DataDir
	if dir == "" {
		dir = defaultDataDir
	}
	return filepath.Join(dir, c.Conf.Name)
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
func (n *netConf) sets(version string) ([]rangeSet, error) {
	all := n.RuntimeConfig.IPRanges
	if n.IPAM.Subnet.IsValid() {
		all = append(all, rangeSet{n.IPAM.addrRange})
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
func (n *netConf) requests(c *plugin.Call) ([]netip.Addr, error) {
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
