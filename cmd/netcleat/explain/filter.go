package explain

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/reconcile"
	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Restore is what brings missing rules back.
var Restore = finding.Run("netcleat reconcile")

// missingRules returns the plugins whose rules the journal knows and the kernel
// lacks.
func (x *exam) missingRules(ctx context.Context) ([]string, error) {
	a := x.row.Attachment()
	if x.Missing != nil {
		return x.Missing[a.String()], nil
	}
	return reconcile.Options{Journal: x.Journal}.Lacks(ctx, a)
}

// Addresses that belong to nobody (RFC 5737, 3849): they stand for the world.
var (
	world4 = netip.AddrFrom4([4]byte{198, 51, 100, 1})
	world6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff, 15: 1})
)

// leaving is a packet of the container's to the world.
func (x *exam) leaving(a netip.Addr) ruleset.Packet {
	p := ruleset.Packet{Src: a, Dst: world4, In: x.gatewayLink()}
	if a.Is6() {
		p.Dst = world6
	}
	if r, err := x.toWorld(a); err == nil && !nl.NoRoute(err) && x.links[r.Index] != nil {
		p.Out = x.links[r.Index].Name
	}
	return p
}

// entering is the answer to it.
func (x *exam) entering(a netip.Addr) ruleset.Packet {
	p := x.leaving(a)
	return ruleset.Packet{Src: p.Dst, Dst: p.Src, In: p.Out, Out: p.In, Answer: true}
}

// masquerading looks whether what leaves gets the host's address, where it is to.
func (x *exam) masquerading(missing []string) {
	c, plugin := x.confs[0], x.main()
	ours := slices.Contains(missing, plugin)
	if !c.IPMasq || !x.routed() {
		if ours {
			what := "its rules (macspoofchk, no masquerading)"
			if c.IPMasq {
				what = "its rules (macspoofchk, masquerading)"
			}
			x.problem(plugin, what, "some are missing", Restore)
		}
		return
	}
	for _, h := range x.hops() {
		subnet := h.addr.Masked()
		want := "masquerading of " + subnet.String()
		mend := Restore
		if !x.row.Recorded {
			mend = finding.Run(rewrite(subnet))
		}
		switch {
		case ours || x.rules.Masqueraded(x.leaving(h.addr.Addr())) == 0:
			x.problem(plugin, want, "no rule does it: the world has no way to answer", mend)
		case x.rules.Masqueraded(x.leaving(h.addr.Addr())) == 1:
			x.note(plugin, want, "there are rules that may do it, which are not understood here", finding.Mend{})
		default:
			x.fine(plugin, want, "OK")
		}
	}
}

// rewrite is a command that masquerades what leaves a subnet.
func rewrite(subnet netip.Prefix) string {
	return fmt.Sprintf("%s -t nat -A POSTROUTING -s %s ! -d %s -j MASQUERADE", iptablesOf(subnet.Addr()), subnet, subnet)
}

func iptablesOf(a netip.Addr) string {
	if a.Is6() {
		return "ip6tables"
	}
	return "iptables"
}

// forwarded looks whether the firewall lets the container's packets and the
// answers through.
func (x *exam) forwarded(missing []string) {
	if !x.routed() {
		return
	}
	plugin := "firewall"
	if !x.has(plugin) {
		plugin = x.main()
	}
	lacks := slices.Contains(missing, "firewall")
	for _, h := range x.hops() {
		a := h.addr.Addr()
		want := "the firewall lets " + h.addr.Masked().String() + " through"
		drops := x.drops(a)
		told := map[string]bool{}
		for _, v := range drops {
			if told[v.Chain] {
				continue
			}
			told[v.Chain] = true
			m := admit(v, h.addr.Masked())
			if lacks {
				m = Restore
			}
			if v.Sure {
				x.problem(plugin, want, v.Chain+" drops it: "+v.By, m)
			} else {
				x.note(plugin, want, v.Chain+" may drop it ("+v.By+"): it has rules that are not understood here", finding.Mend{})
			}
		}
		switch {
		case len(drops) > 0:
		case lacks:
			x.problem(plugin, want, "the rules that see to it are missing, though now nothing drops it", Restore)
		default:
			x.fine(plugin, want, "OK")
		}
	}
}

// drops are the chains on the way out of the container and back that drop its
// packets. Before routing the answers have the host's address where it masquerades.
func (x *exam) drops(a netip.Addr) []dropped {
	out, back := x.leaving(a), x.entering(a)
	arrives, comes := out, back
	arrives.Out, comes.Out = "", ""
	if x.confs[0].IPMasq {
		comes.Dst = netip.Addr{}
	}
	var all []dropped
	for _, w := range []struct {
		hook   string
		packet ruleset.Packet
	}{
		{"prerouting", arrives}, {"prerouting", comes}, {"forward", out}, {"forward", back}, {"postrouting", out}, {"postrouting", back},
	} {
		for _, v := range x.rules.Drops(w.hook, w.packet) {
			all = append(all, dropped{v, w.hook, w.packet})
		}
	}
	return all
}

// dropped is a packet that a chain drops.
type dropped struct {
	ruleset.Verdict
	hook   string
	packet ruleset.Packet
}

// admit is what has a chain let a subnet's packets and the answers through.
func admit(v dropped, subnet netip.Prefix) finding.Mend {
	switch {
	case v.hook == "forward":
		return finding.Run(admitForwarded(v.Verdict, subnet))
	case v.packet.Answer: // before connections are tracked nothing tells an answer from an attack
		return finding.Do("have " + v.Chain + " let answers to the host's own connections pass: what comes in over " + v.packet.In)
	}
	if tool := v.IPTables(subnet.Addr()); tool != "" {
		table, name := v.Place()
		return finding.Run(fmt.Sprintf("%s -t %s -I %s -s %s -j ACCEPT", tool, table, name, subnet))
	}
	return finding.Run(fmt.Sprintf("nft insert rule %s %s saddr %s accept", v.Chain, family(subnet.Addr()), subnet))
}

// family is nft(8)'s word for the family of an address.
func family(a netip.Addr) string {
	if a.Is6() {
		return "ip6"
	}
	return "ip"
}

// admitForwarded is a command that has a chain let a subnet's packets and the answers
// through.
func admitForwarded(v ruleset.Verdict, subnet netip.Prefix) string {
	if table, name := v.Place(); !v.Native || table == "filter" && name == "FORWARD" {
		tool := v.IPTables(subnet.Addr())
		return fmt.Sprintf("%s -I FORWARD -s %s -j ACCEPT && %s -I FORWARD -d %s -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT", tool, subnet, tool, subnet)
	}
	ip := family(subnet.Addr())
	insert := "nft insert rule " + v.Chain + " "
	return fmt.Sprintf("%s%s saddr %s accept && %s%s daddr %s ct state established,related accept && %s%s daddr %s ct status dnat accept",
		insert, ip, subnet, insert, ip, subnet, insert, ip, subnet)
}
