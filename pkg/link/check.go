package link

import (
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Find returns the result's interface of that name and its index among the
// result's interfaces: the sandbox's where sandbox is set, however its path is
// spelt, and the host's otherwise.
func Find(res *current.Result, name, sandbox string) (*current.Interface, int) {
	for i, f := range res.Interfaces {
		if f.Name == name && (f.Sandbox == "") == (sandbox == "") {
			return f, i
		}
	}
	return nil, -1
}

// Owned returns the result's addresses of the interface with that index. One
// that names no interface is the attachment's.
func Owned(ips []*current.IPConfig, index int) []*current.IPConfig {
	var all []*current.IPConfig
	for _, ip := range ips {
		if ip.Interface == nil || *ip.Interface == index {
			all = append(all, ip)
		}
	}
	return all
}

// CheckAddrs compares the addresses that the link should have with those that
// it has. Others, which the container may have added, do not matter.
func CheckAddrs(c *nl.Conn, l *nl.Link, want []*current.IPConfig) error {
	if len(want) == 0 {
		return nil
	}
	have, err := c.Addrs(l.Index)
	if err != nil {
		return err
	}
	flags := map[netip.Prefix]uint32{}
	for _, a := range have {
		flags[a.Prefix] = a.Flags
	}
	for _, ip := range want {
		p, err := PrefixOf(ip.Address)
		if err != nil {
			return err
		}
		f, ok := flags[p]
		switch {
		case !ok:
			return cnierr.Check("interface %s: address %s is missing", l.Name, p)
		case f&unix.IFA_F_DADFAILED != 0:
			return cnierr.Check("interface %s: address %s is a duplicate (dadfailed): another host on the link has it", l.Name, p)
		}
	}
	return nil
}

// CheckRoutes compares the routes that the result asks for with the sandbox's.
func CheckRoutes(c *nl.Conn, l *nl.Link, ips []*current.IPConfig, routes []*types.Route) error {
	want, err := Routes(l.Index, ips, routes)
	if err != nil || len(want) == 0 {
		return err
	}
	have, err := c.Routes(0)
	if err != nil {
		return err
	}
	for _, w := range want {
		if !hasRoute(have, w) {
			return cnierr.Check("interface %s: route %s is missing", l.Name, w)
		}
	}
	return nil
}

// hasRoute reports whether the kernel has the route. One that names no table may
// stand in any: sbr and vrf move it out of the main one.
func hasRoute(have []nl.Route, w nl.Route) bool {
	for _, h := range have {
		same := h.Dst == w.Dst && h.Index == w.Index && h.Gateway == w.Gateway
		if same && (w.Table == 0 || h.Table == w.Table) && (w.Priority == 0 || h.Priority == w.Priority) {
			return true
		}
	}
	return false
}

// CheckSandbox compares the sandbox's interface with the result, as CheckMade
// does, and that it is up.
func CheckSandbox(p *nl.Pair, c *plugin.Call, res *current.Result, kind string) (*nl.Link, error) {
	l, err := CheckMade(p, c, res, kind)
	if err == nil && !l.Up() {
		err = cnierr.Check("interface %s is down", l.Name)
	}
	return l, err
}

// CheckMade compares the sandbox's interface with the result: it is there, of the
// kind, and has its MAC address, addresses and routes.
func CheckMade(p *nl.Pair, c *plugin.Call, res *current.Result, kind string) (*nl.Link, error) {
	want, at := Find(res, c.IfName, c.Netns)
	if want == nil {
		return nil, cnierr.Check("prevResult has no interface %s in %s", c.IfName, c.Netns)
	}
	l, err := Expect(p.Sandbox, want, kind)
	if err != nil {
		return nil, err
	}
	ips := Owned(res.IPs, at)
	if err := CheckAddrs(p.Sandbox, l, ips); err != nil {
		return nil, err
	}
	return l, CheckRoutes(p.Sandbox, l, ips, res.Routes)
}

// Expect finds the link that CHECK is about and compares what every kind has: it
// is there, of the kind, and has the MAC address that the result reports.
func Expect(c *nl.Conn, want *current.Interface, kind string) (*nl.Link, error) {
	l, err := c.LinkNamed(want.Name)
	if nl.NotFound(err) {
		return nil, cnierr.Check("interface %s is missing", want.Name)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case kind != "" && l.Kind != kind:
		return nil, cnierr.Check("interface %s is of kind %q, not %q", l.Name, l.Kind, kind)
	case want.Mac != "" && !sameMAC(want.Mac, l):
		return nil, cnierr.Check("interface %s has MAC address %s, not %s", l.Name, l.MAC, want.Mac)
	}
	return l, nil
}
