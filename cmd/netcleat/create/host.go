package create

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/nl"
)

// look looks at the host.
func look(ctx context.Context, o Options) (h host, err error) {
	if h, err = kernel(); err != nil {
		return h, err
	}
	h.Networks = networks(ctx, o, o.Places)
	// Networks of one name in two directories may have different subnets.
	for _, dir := range o.Dirs()[1:] {
		p := o.Places
		p.NetConf, p.Journal, p.Cache = dir, "", "" // which have been looked at
		h.Networks = append(h.Networks, networks(ctx, o, p)...)
	}
	h.Global = global("/etc/machine-id")
	return h, nil
}

// networks returns those of a directory, and those that something is attached to.
// What cannot be read is told: it may have a subnet, but is no reason to make none.
func networks(ctx context.Context, o Options, p show.Places) (all []network) {
	found, err := show.Networks(ctx, p)
	if err != nil {
		o.Warn("not everything could be read, and may overlap: %v", err)
	}
	for _, f := range found {
		n := network{Name: f.Name, Where: f.File}
		if f.File == "" {
			n.Where = "something is attached to it: netcleat ls " + f.Name
		}
		if f.Driver == "bridge" {
			n.Bridge = f.Link
		}
		for _, conf := range f.Options {
			n.Subnets = append(n.Subnets, Subnets(conf)...)
		}
		all = append(all, n)
	}
	return all
}

// Subnets returns the prefixes that a plugin's configuration gives addresses of:
// those of host-local, static, whereabouts, and whoever writes them so.
func Subnets(conf json.RawMessage) (all []netip.Prefix) {
	type prefixes struct{ Subnet, Range, Address string }
	var c struct {
		IPAM struct {
			prefixes
			Ranges    json.RawMessage
			IPRanges  []prefixes `json:"ipRanges"`
			Addresses []prefixes
		}
	}
	_ = json.Unmarshal(conf, &c) // what is of another type says nothing
	given := append(append([]prefixes{c.IPAM.prefixes}, c.IPAM.IPRanges...), c.IPAM.Addresses...)
	var sets [][]prefixes
	_ = json.Unmarshal(c.IPAM.Ranges, &sets) // as before
	for _, set := range sets {
		given = append(given, set...)
	}
	for _, g := range given {
		for _, s := range []string{g.Subnet, g.Range, g.Address} {
			if _, after, ok := strings.Cut(s, "-"); ok {
				s = after // whereabouts: FIRST-LAST/BITS
			}
			if p, err := netip.ParsePrefix(s); err == nil {
				all = append(all, p.Masked())
			}
		}
	}
	return all
}

// kernel asks for links, addresses, rules and routes.
func kernel() (h host, err error) {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	links, err := c.Links()
	if err != nil {
		return h, err
	}
	h.Links, h.Alts = map[string]string{}, map[string]string{}
	names := map[int]string{}
	for _, l := range links {
		h.Links[l.Name], names[l.Index] = l.Kind, l.Name
		for _, alt := range l.AltNames {
			h.Alts[alt] = l.Name
		}
	}
	addrs, err := c.Addrs(0)
	if err != nil {
		return h, err
	}
	for _, a := range addrs {
		h.Local = append(h.Local, local{a.Prefix.Addr(), names[a.Index]})
		h.hold(a.Prefix.Masked(), names[a.Index], fmt.Sprintf("address %s of %s", a.Prefix, names[a.Index]))
	}
	return h, h.routes(c, names)
}

// routes holds what the host routes, by the main table or any other that a rule
// looks up: VPNs have tables of their own, which come before the main one.
func (h *host) routes(c *nl.Conn, names map[int]string) error {
	rules, err := c.Rules()
	if err != nil {
		return err
	}
	used := map[uint32]bool{unix.RT_TABLE_MAIN: true}
	for _, r := range rules {
		used[r.Table] = true
		if r.Dst.IsValid() {
			h.hold(r.Dst.Masked(), "", fmt.Sprintf("rule %d: %s", r.Priority, r))
		}
	}
	used[unix.RT_TABLE_LOCAL] = false // the host's addresses
	routes, err := c.Routes(0)
	for _, r := range routes {
		if !used[r.Table] || r.Type == unix.RTN_THROW { // which leads back to the rules
			continue
		}
		by := fmt.Sprintf("route %s by %s", r.Dst, cmp.Or(names[r.Index], "nothing"))
		if r.Table != unix.RT_TABLE_MAIN {
			by += fmt.Sprintf(" (table %d)", r.Table)
		}
		h.hold(r.Dst, names[r.Index], by)
	}
	return err
}

// defaultBits is the longest prefix of what stands for everything: VPNs have two
// halves for a default route.
const defaultBits = 1

// hold writes down what is the host's, but for default routes and what containers
// cannot have anyway.
func (h *host) hold(p netip.Prefix, link, by string) {
	if p.Bits() <= defaultBits {
		return
	}
	for _, s := range special {
		if s.Bits() <= p.Bits() && s.Contains(p.Addr()) {
			return
		}
	}
	h.Addrs = append(h.Addrs, held{p, by, link})
}

// global returns the host's own part of local IPv6 addresses: made of the
// machine's ID, or where it has none by chance.
func global(file string) (id [5]byte) {
	machine, err := os.ReadFile(file)
	if err != nil || len(machine) == 0 {
		_, _ = rand.Read(id[:]) // never fails
		return id
	}
	hash := sha256.Sum256(append([]byte("netcleat "), machine...))
	copy(id[:], hash[:])
	return id
}
