package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// link is what ip(8) says of an interface.
type link struct {
	Index     int    `json:"ifindex"`
	Name      string `json:"ifname"`
	Master    string `json:"master"`
	PeerIndex int    `json:"link_index"`
	PeerName  string `json:"link"`
	Addresses []struct {
		Local  string `json:"local"`
		Length int    `json:"prefixlen"`
		Scope  string `json:"scope"`
	} `json:"addr_info"`
	Info struct {
		Kind string `json:"info_kind"`
	} `json:"linkinfo"`
}

// route is what ip(8) says of a route.
type route struct {
	Dst     string `json:"dst"`
	Gateway string `json:"gateway"`
}

// container is one with its interface, routes, and the port it hangs on.
type container struct {
	name   string
	eth0   link
	routes []route
}

// scene is all that the picture shows.
type scene struct {
	links      []link // the host's
	containers []container
	rules      []string // that hide the containers behind the host
	forwarding string
}

// look gathers what exists and draws it.
func look(ctx context.Context, names []string) (string, error) {
	var s scene
	if err := ipJSON(ctx, &s.links, "-d", "addr"); err != nil {
		return "", err
	}
	for _, name := range names {
		c := container{name: name}
		var links []link
		err := errors.Join(ipJSON(ctx, &links, "-n", name, "-d", "addr", "show", "eth0"), ipJSON(ctx, &c.routes, "-n", name, "route"))
		if err != nil || len(links) != 1 {
			return "", fmt.Errorf("eth0 of %s: %w", name, err)
		}
		c.eth0 = links[0]
		s.containers = append(s.containers, c)
	}
	ruleset, err := output(ctx, "nft", "list", "ruleset")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(ruleset)) {
		if masquerades(line) {
			s.rules = append(s.rules, strings.TrimSpace(line))
		}
	}
	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	s.forwarding = strings.TrimSpace(string(forward))
	return s.draw(), err
}

// masquerades reports whether a line of the ruleset is a rule that does so; the
// names of tables and comments have the word, too.
func masquerades(line string) bool {
	rule, _, _ := strings.Cut(line, " comment ")
	return slices.Contains(strings.Fields(rule), "masquerade")
}

// ipJSON runs ip(8) and decodes its answer.
func ipJSON(ctx context.Context, v any, args ...string) error {
	out, err := output(ctx, append([]string{"ip", "-j"}, args...)...)
	if err != nil {
		return err
	}
	return json.Unmarshal(out, v)
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
		if l.Info.Kind == "bridge" {
			fmt.Fprintf(&b, "  %s #%d  bridge  %s\n", l.Name, l.Index, l.addresses())
			s.drawPorts(&b, l.Name)
		}
	}
	return b.String()
}

// drawPorts draws the ports of a bridge, each with the container at its other
// end.
func (s scene) drawPorts(b *strings.Builder, bridge string) {
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
			if c.eth0.PeerIndex == port.Index {
				fmt.Fprintf(b, "   %s── %s #%d ═══ eth0 #%d in %s  %s\n", branch, port.Name, port.Index, c.eth0.Index, c.name, c.eth0.addresses())
				fmt.Fprintf(b, "   %s   routes: %s\n", trunk, drawRoutes(c.routes))
			}
		}
	}
}

func drawRoutes(routes []route) string {
	var all []string
	for _, r := range routes {
		text := r.Dst
		if r.Gateway != "" {
			text += " via " + r.Gateway
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// addresses lists the interface's, but the link-local ones.
func (l link) addresses() string {
	var all []string
	for _, a := range l.Addresses {
		if a.Scope == "global" {
			all = append(all, fmt.Sprintf("%s/%d", a.Local, a.Length))
		}
	}
	return strings.Join(all, " ")
}

// firstAddress returns the first address of a result.
func firstAddress(r types.Result) (string, error) {
	res, err := current.NewResultFromResult(r)
	if err != nil {
		return "", err
	}
	if len(res.IPs) == 0 {
		return "", errors.New("result without an address")
	}
	return res.IPs[0].Address.IP.String(), nil
}
