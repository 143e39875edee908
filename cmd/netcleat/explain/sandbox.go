package explain

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

// findInterface looks for the sandbox's end, and reports whether it is there.
func (x *exam) findInterface() (there bool, err error) {
	plugin := x.main()
	l, err := x.pair.Sandbox.LinkNamed(x.row.Interface)
	if nl.NotFound(err) {
		l, err = x.renamed()
	}
	if err != nil || l == nil {
		return false, err
	}
	x.sandbox = l
	name := l.Name
	if host := x.links[l.Parent]; l.ParentNetns >= 0 && host != nil && (l.Kind != "veth" || host.Kind == "veth" && host.Parent == l.Index) {
		x.end = host
	}
	have := ""
	switch {
	case !l.Up() && !x.confs[0].Disabled:
		have = "it is down"
	case l.OperState != nl.OperUp && x.end != nil && x.end.Up() && x.carries():
		have = "it has no carrier"
	}
	x.judge(plugin, name+" in the sandbox, up", have, finding.Run(x.inside("ip link set "+finding.Quote(name)+" up")))
	if mtu := x.confs[0].MTU; mtu != 0 {
		have = ""
		if l.MTU != mtu {
			have = fmt.Sprintf("it is %d", l.MTU)
		}
		x.judge(plugin, fmt.Sprintf("MTU %d on %s", mtu, name), have, finding.Run(x.inside(fmt.Sprintf("ip link set %s mtu %d", finding.Quote(name), mtu))))
	}
	return true, nil
}

// carries reports whether a link of its kind tells by its state that it is
// connected.
func (x *exam) carries() bool { return x.sandbox.Kind == "veth" && x.sandbox.Up() }

// renamed returns the interface under another name, which does not keep packets
// from passing, or nil where it is missing.
func (x *exam) renamed() (*nl.Link, error) {
	name := x.row.Interface
	all, err := x.pair.Sandbox.Links()
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		if x.was(l) {
			// A name may be anything that the container likes.
			rename := x.inside("ip link set " + finding.Quote(l.Name) + " name " + finding.Quote(name))
			if i := slices.IndexFunc(all, func(l *nl.Link) bool { return slices.Contains(l.AltNames, name) }); i >= 0 {
				rename = x.inside("ip link property del dev "+finding.Quote(all[i].Name)+" altname "+finding.Quote(name)) + " && " + rename
			}
			x.warn(x.main(), name+" in the sandbox", "it is called "+l.Name, finding.Run(rename))
			return l, nil
		}
	}
	x.problem(x.main(), name+" in the sandbox, up", "it is missing", again)
	return nil, nil
}

// was reports whether a link of the sandbox is the one that the records speak of.
func (x *exam) was(l *nl.Link) bool {
	for _, r := range x.row.Attachment().Records {
		for _, rec := range r.Links {
			kind := rec.Kind
			if kind == "" {
				kind = "veth"
			}
			if rec.Sandbox && rec.MAC == l.MAC.String() && kind == l.Kind && l.Kind != "" {
				return true
			}
		}
	}
	return false
}

// addresses looks for the addresses that IPAM gave.
func (x *exam) addresses() error {
	hops := x.hops()
	if len(hops) == 0 {
		return nil
	}
	if err := x.disabled(hops); err != nil {
		return err
	}
	have := x.addrs
	plugin, dev := x.ipam(), finding.Quote(x.sandbox.Name)
	for _, h := range hops {
		want := fmt.Sprintf("%s on %s", h.addr, x.sandbox.Name)
		i := slices.IndexFunc(have, func(a nl.Addr) bool { return a.Prefix == h.addr })
		add := "ip addr replace " + h.addr.String() + " dev " + dev
		if h.addr.Addr().Is6() {
			add += " nodad"
		}
		switch {
		case i < 0:
			x.problem(plugin, want, "it is missing", finding.Run(x.inside(add)))
		case have[i].Flags&unix.IFA_F_DADFAILED != 0:
			x.problem(plugin, want, "another on the link has it (dadfailed)", finding.Mend{
				Command: x.inside("ip addr del "+h.addr.String()+" dev "+dev) + " && " + x.inside("ip addr add "+h.addr.String()+" dev "+dev),
				When:    "once the other has given it up",
			})
		case have[i].Flags&unix.IFA_F_TENTATIVE != 0 && have[i].Flags&unix.IFA_F_OPTIMISTIC == 0:
			x.note(plugin, want, "whether another has it is still being asked (tentative)", finding.Mend{})
		default:
			x.fine(plugin, want, "OK")
		}
		x.shared(h)
	}
	return nil
}

// ipam is the plugin that gave the addresses.
func (x *exam) ipam() string {
	if t := x.confs[0].IPAM.Type; t != "" {
		return t
	}
	return x.main()
}

// shared names another attachment of the network with the same address.
func (x *exam) shared(h hop) {
	for _, r := range x.holders[holding{x.row.Network, h.addr.String()}] {
		if r.Container != x.row.Container || r.Interface != x.row.Interface {
			x.problem(x.ipam(), h.addr.Addr().String()+" for nobody else", "container "+r.Called()+" "+r.Interface+" has it, too",
				finding.Do("detach one of the two with its runtime"))
		}
	}
}

// sharedMAC names another attachment of the network with the same hardware address. The
// links of ipvlan all have their parent's.
func (x *exam) sharedMAC() {
	if x.main() == "ipvlan" || x.main() == "loopback" || len(x.sandbox.MAC) == 0 {
		return
	}
	for _, r := range x.holders[holding{x.row.Network, x.sandbox.MAC.String()}] {
		if r.Container != x.row.Container || r.Interface != x.row.Interface {
			x.problem(x.main(), r.MAC+" for nobody else", "container "+r.Called()+" "+r.Interface+" has it, too",
				finding.Do("attach one of the two again with another MAC address: frames of either go to the one that sent last"))
		}
	}
}

// disabled looks whether the interface may have IPv6.
func (x *exam) disabled(hops []hop) error {
	if !slices.ContainsFunc(hops, func(h hop) bool { return h.addr.Addr().Is6() }) {
		return nil
	}
	key := "net/ipv6/conf/" + x.sandbox.Name + "/disable_ipv6"
	v, err := sysctl.Get(x.pair.NS, key)
	if err != nil {
		return err
	}
	have := ""
	if v != "0" {
		have = "disable_ipv6 is " + v
	}
	x.judge(x.main(), "IPv6 on "+x.sandbox.Name, have, finding.Run(x.inside(setting(key, "0"))))
	return nil
}

// setting is a command that sets a sysctl, whose key has slashes: sysctl(8) wants
// dots for them, and slashes for dots.
func setting(key, value string) string {
	swapped := strings.Map(func(r rune) rune {
		switch r {
		case '/':
			return '.'
		case '.':
			return '/'
		}
		return r
	}, key)
	return "sysctl -w " + finding.Quote(swapped+"="+value)
}

// routes looks for the routes that the addresses bring, and those of the result.
func (x *exam) routes() error {
	if !x.sandbox.Up() || !known(x.main()) {
		return nil // the kernel has dropped them, and brings some of them back; others' results may say more than they do
	}
	want, err := link.Routes(x.sandbox.Index, x.result.IPs, x.result.Routes)
	if err != nil {
		return err
	}
	want = append(x.connected(), want...)
	if len(want) == 0 {
		return nil
	}
	have := x.table
	for _, w := range want {
		lacks := ""
		if !slices.ContainsFunc(have, func(h nl.Route) bool { return serves(h, w) }) {
			lacks = "it is missing"
			if i := slices.IndexFunc(have, func(h nl.Route) bool { return h.Dst == w.Dst && h.Dst.Bits() == 0 && h.Table == unix.RT_TABLE_MAIN }); i >= 0 {
				lacks = "it is missing: there is " + have[i].String()
			}
		}
		x.judge(x.main(), "route "+destination(w)+" in the sandbox", lacks, finding.Run(x.inside(x.routeCommand(w))))
	}
	return nil
}

// serves reports whether the kernel's route is the one that is wanted. One that
// names no table may stand in any: sbr and vrf move it out of the main one.
func serves(h, w nl.Route) bool {
	return h.Dst == w.Dst && h.Index == w.Index && h.Gateway == w.Gateway && (w.Table == 0 || h.Table == w.Table) && (w.Priority == 0 || h.Priority == w.Priority)
}

// connected are the routes to what is on the link. With ptp nothing is but the
// gateway.
func (x *exam) connected() (list []nl.Route) {
	there := map[netip.Prefix]bool{}
	for _, a := range x.addrs {
		there[a.Prefix] = a.Flags&unix.IFA_F_NOPREFIXROUTE == 0
	}
	add := func(r nl.Route) {
		if !slices.ContainsFunc(list, func(o nl.Route) bool { return o.Dst == r.Dst }) {
			list = append(list, r)
		}
	}
	for _, h := range x.hops() {
		switch {
		case x.main() == "ptp" && h.gateway.IsValid():
			add(nl.Route{Dst: netip.PrefixFrom(h.gateway, h.gateway.BitLen()), Index: x.sandbox.Index, Source: h.addr.Addr(), Scope: unix.RT_SCOPE_LINK})
		case !h.addr.IsSingleIP() && there[h.addr]:
			add(nl.Route{Dst: h.addr.Masked(), Index: x.sandbox.Index, Source: h.addr.Addr(), Scope: unix.RT_SCOPE_LINK})
		}
	}
	return list
}

func destination(r nl.Route) string {
	if r.Dst.Bits() == 0 {
		return strings.Replace(r.String(), r.Dst.String(), "default", 1)
	}
	return r.String()
}

// routeCommand is the ip(8) command that makes the route.
func (x *exam) routeCommand(r nl.Route) string {
	s := "ip route replace "
	if r.Dst.Addr().Is6() {
		s = "ip -6 route replace "
	}
	s += r.String() + " dev " + finding.Quote(x.sandbox.Name)
	if r.Source.IsValid() {
		s += " src " + r.Source.String()
	}
	if r.Priority != 0 {
		s += fmt.Sprintf(" metric %d", r.Priority)
	}
	if r.MTU != 0 {
		s += fmt.Sprintf(" mtu %d", r.MTU)
	}
	if r.AdvMSS != 0 {
		s += fmt.Sprintf(" advmss %d", r.AdvMSS)
	}
	return s
}

// insideNeighbours looks at what the sandbox believes of its gateways.
func (x *exam) insideNeighbours() error {
	for _, h := range x.hops() {
		if !h.gateway.IsValid() {
			continue
		}
		all, err := x.pair.Sandbox.Neighs(familyOf(h.gateway))
		if err != nil {
			return err
		}
		at := slices.IndexFunc(all, func(n nl.Neigh) bool { return n.Index == x.sandbox.Index && n.IP == h.gateway })
		if at < 0 {
			continue
		}
		n := all[at]
		forget := finding.Run(x.inside("ip neigh del " + h.gateway.String() + " dev " + finding.Quote(x.sandbox.Name)))
		want := "gateway " + h.gateway.String() + " as a neighbour"
		gw := x.hostLink(x.gatewayLink())
		switch {
		case x.routed() && gw != nil && len(n.MAC) > 0 && !bytes.Equal(n.MAC, gw.MAC):
			x.problem(x.main(), want, fmt.Sprintf("the sandbox takes it to be at %s, and it is at %s", n.MAC, gw.MAC), forget)
			x.isSymptom()
		case n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0:
			x.note(x.main(), want, "it did not answer when it was last asked", forget)
		}
	}
	return nil
}

// isSymptom says of the last line that it may come of another: what a neighbour is taken
// to be at changes with the links between.
func (x *exam) isSymptom() { x.lines[len(x.lines)-1].symptom = true }

func familyOf(a netip.Addr) uint8 {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// insideFilter looks whether answers are dropped that come over another
// interface than the one they were asked on.
func (x *exam) insideFilter() error {
	if len(x.container) < 2 || x.has("sbr") || x.has("vrf") {
		return nil
	}
	strict, err := strictest(func(key string) (string, error) { return sysctl.Get(x.pair.NS, key) }, x.sandbox.Name)
	if err != nil || strict == "" {
		return err
	}
	x.note(x.main(), "answers over any of the sandbox's interfaces", "rp_filter is strict: what comes where no answer would go is dropped",
		finding.Run(x.inside(setting(strict, "2"))))
	return nil
}

// strictest returns the sysctl that makes the filter of return paths strict on
// the interface, or "": the kernel takes the greater of two, and 2 is loose.
func strictest(get func(string) (string, error), name string) (string, error) {
	key := func(name string) string { return "net/ipv4/conf/" + name + "/rp_filter" }
	all, err := get(key("all"))
	if err != nil {
		return "", err
	}
	own, err := get(key(name))
	switch {
	case err != nil || max(all, own) != "1":
		return "", err
	case all == "1":
		return key("all"), nil
	}
	return key(name), nil
}
