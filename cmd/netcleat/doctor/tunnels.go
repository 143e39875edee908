package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// blocked is a chain that drops the VXLAN packets of other hosts, or those to them.
type blocked struct {
	ruleset.Verdict
	to bool // those to them
}

// tunnels looks whether the host's firewall lets through what the uplink and other hosts
// send to each other.
func (e *exam) tunnels(ctx context.Context, n show.Network, c *vxlan.Conf, l *nl.Link) error {
	u, ok := vxlan.Read(l)
	if !ok || !MayAdmin() {
		return nil
	}
	hosts, err := overlay.Behind(c)
	if err != nil || len(hosts) == 0 {
		return err
	}
	rules, err := e.ruleset(ctx)
	if err != nil {
		return err
	}
	by := map[blocked][]netip.Addr{}
	for _, host := range slices.SortedFunc(maps.Keys(hosts), netip.Addr.Compare) {
		in := ruleset.Packet{Src: host, Dst: u.Local, In: c.Dev, Proto: "udp", Port: uint16(c.Port), Local: true}
		out := ruleset.Packet{Src: u.Local, Dst: host, Out: c.Dev, Proto: "udp", Port: uint16(c.Port)}
		if v := rules.Redirected(in); v != nil {
			e.add(finding.Problem, finding.Do("publish another port, or give the network another vxlan.port on all hosts"), "network %s: %s gives udp/%d from host %s another destination: %s: its containers are not reached", n.Name, v.Chain, c.Port, host, v.By)
		}
		for _, v := range append(rules.Drops("prerouting", in), rules.Drops("input", in)...) {
			by[blocked{v, false}] = append(by[blocked{v, false}], host)
		}
		for _, v := range append(rules.Drops("output", out), rules.Drops("postrouting", out)...) {
			by[blocked{v, true}] = append(by[blocked{v, true}], host)
		}
	}
	for _, b := range slices.SortedFunc(maps.Keys(by), func(a, b blocked) int { return cmp.Or(strings.Compare(a.Chain, b.Chain), strings.Compare(a.By, b.By)) }) {
		from := texts(by[b])
		what := fmt.Sprintf("udp/%d %s hosts %s", c.Port, map[bool]string{false: "from", true: "to"}[b.to], term.Brief(from))
		if !b.Sure {
			e.add(finding.Note, nothing, "network %s: %s may drop %s (%s): it has rules that are not understood here", n.Name, b.Chain, what, b.By)
			continue
		}
		e.add(finding.Problem, b.admit(by[b], c.Port), "network %s: %s drops %s: %s: their containers are not reached", n.Name, b.Chain, what, b.By)
	}
	return nil
}

// admit is what has the chain let the packets through. Those of others stay out: VXLAN is
// not authenticated.
func (b blocked) admit(hosts []netip.Addr, port int) finding.Mend {
	table, name := b.Place()
	if table == "firewalld" {
		return finding.Do(fmt.Sprintf("have firewalld accept udp/%d from these hosts: rich rules of the zone", port))
	}
	side, key, family := "-s", "saddr", "ip"
	if b.to {
		side, key = "-d", "daddr"
	}
	if hosts[0].Is6() {
		family = "ip6"
	}
	if tool := b.IPTables(hosts[0]); tool != "" {
		return finding.Run(fmt.Sprintf("%s -t %s -I %s -p udp --dport %d %s %s -j ACCEPT", tool, table, name, port, side, strings.Join(texts(hosts), ",")))
	}
	return finding.Run(fmt.Sprintf("nft 'insert rule %s %s %s { %s } udp dport %d accept'", b.Chain, family, key, strings.Join(texts(hosts), ", "), port))
}

func texts(addrs []netip.Addr) (all []string) {
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return all
}
