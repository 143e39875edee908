package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// link is an interface with its addresses.
type link struct {
	*nl.Link
	addrs []netip.Prefix
}

// container is one with its interface, and routes.
type container struct {
	name   string
	eth0   link
	routes []nl.Route
}

// scene is all that the picture shows.
type scene struct {
	links      []link // the host's
	containers []container
	rules      []string // that hide the containers behind the host
	forwarding string
}

// look gathers what exists and draws it.
func look(ctx context.Context, names []string) (text string, err error) {
	var s scene
	if s.links, err = linksOf(""); err != nil {
		return "", err
	}
	for _, name := range names {
		c := container{name: name}
		if err := c.look(); err != nil {
			return "", fmt.Errorf("eth0 of %s: %w", name, err)
		}
		s.containers = append(s.containers, c)
	}
	if s.rules, err = masquerading(ctx); err != nil {
		return "", err
	}
	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	s.forwarding = strings.TrimSpace(string(forward))
	return s.draw(), err
}

// dial opens a socket in the container.
func (c container) dial() (*nl.Conn, error) {
	if c.name == "" { // the host
		return nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	}
	ns, err := netns.Open(pathOf(c.name))
	if err != nil {
		return nil, err
	}
	conn, err := nl.Dial(ns, unix.NETLINK_ROUTE, nil)
	return conn, errors.Join(err, ns.Close())
}

func (c *container) look() error {
	links, err := linksOf(c.name)
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Name == "eth0" {
			c.eth0 = l
		}
	}
	if c.eth0.Link == nil {
		return unix.ENODEV
	}
	conn, err := c.dial()
	if err != nil {
		return err
	}
	c.routes, err = conn.Routes(unix.RT_TABLE_MAIN)
	return errors.Join(err, conn.Close())
}

// linksOf returns the interfaces of a container, or of the host.
func linksOf(name string) (all []link, err error) {
	c, err := container{name: name}.dial()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	links, err := c.Links()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		own := link{Link: l}
		addrs, err := c.Addrs(l.Index)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			own.addrs = append(own.addrs, a.Prefix)
		}
		all = append(all, own)
	}
	return all, nil
}

// masquerading returns the rules that do so, as nft(8) writes them.
func masquerading(ctx context.Context) (rules []string, err error) {
	r, err := ruleset.Read(ctx)
	if err != nil {
		return nil, err
	}
	marks, err := r.Marks()
	for _, m := range marks {
		if !m.Element && masquerades(m.Text) {
			rules = append(rules, m.Text)
		}
	}
	return rules, err
}

// masquerades reports whether a rule does so; comments have the word, too.
func masquerades(text string) bool {
	rule, _, _ := strings.Cut(text, " comment ")
	return slices.Contains(strings.Fields(rule), "masquerade")
}

// draw draws the scene: the world on top, containers below.
func (s scene) draw() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %s %s\n   ║\n", world, worldAddress)
	for _, l := range s.links {
		if l.Name == "up0" {
			fmt.Fprintf(&b, "  up0 #%d  %s\n", l.Index, l.addresses())
		}
	}
	fmt.Fprintf(&b, "   │\n   │  forwarding %s\n", s.forwarding)
	for _, rule := range s.rules {
		fmt.Fprintf(&b, "   │  NAT: %s\n", rule)
	}
	b.WriteString("   │\n")
	for _, l := range s.links {
		if l.Kind == "bridge" {
			fmt.Fprintf(&b, "  %s #%d  bridge  %s\n", l.Name, l.Index, l.addresses())
			s.drawPorts(&b, l.Index)
		}
	}
	return b.String()
}

// drawPorts draws the ports of a bridge, each with the container at its other
// end.
func (s scene) drawPorts(b *strings.Builder, bridge int) {
	var ports []link
	for _, l := range s.links {
		if l.Master == bridge {
			ports = append(ports, l)
		}
	}
	for i, port := range ports {
		branch, trunk := "├", "│"
		if i == len(ports)-1 {
			branch, trunk = "└", " "
		}
		for _, c := range s.containers {
			if c.eth0.Parent == port.Index {
				fmt.Fprintf(b, "   %s── %s #%d ═══ eth0 #%d in %s  %s\n", branch, port.Name, port.Index, c.eth0.Index, c.name, c.eth0.addresses())
				fmt.Fprintf(b, "   %s   routes: %s\n", trunk, drawRoutes(c.routes))
			}
		}
	}
}

func drawRoutes(routes []nl.Route) string {
	var all []string
	for _, r := range routes {
		text := r.Dst.String()
		switch {
		case r.Dst.Addr().IsLinkLocalUnicast(), r.Dst.Addr().IsMulticast():
			continue
		case r.Dst.Bits() == 0:
			text = "default"
		}
		if r.Gateway.IsValid() {
			text += " via " + r.Gateway.String()
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// addresses lists the interface's, but the link-local ones.
func (l link) addresses() string {
	var all []string
	for _, p := range l.addrs {
		if !p.Addr().IsLinkLocalUnicast() {
			all = append(all, p.String())
		}
	}
	return strings.Join(all, " ")
}

// firstAddress returns the first address of a result.
func firstAddress(r types.Result) (netip.Addr, error) {
	res, err := current.NewResultFromResult(r)
	if err != nil {
		return netip.Addr{}, err
	}
	if len(res.IPs) == 0 {
		return netip.Addr{}, errors.New("result without an address")
	}
	a, _ := netip.AddrFromSlice(res.IPs[0].Address.IP)
	return a.Unmap(), nil
}
