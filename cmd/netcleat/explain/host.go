package explain

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/pkg/look"
	"github.com/netcleat/netcleat/pkg/nl"
)

// outside looks at what the host has for the attachment.
func (x *exam) outside() []error {
	switch x.main() {
	case "bridge":
		return x.bridge()
	case "ptp":
		if x.end == nil {
			x.problem("ptp", "an end on the host", "it is not there", again)
			return nil
		}
		x.endUp()
		return []error{x.hostRoutes(), x.forwarding(), x.filter()}
	default:
		x.parent()
		return nil
	}
}

// parent looks at the link that the sandbox's is made from.
func (x *exam) parent() {
	l := x.end
	if l == nil || x.sandbox.Parent == 0 {
		return
	}
	have := ""
	if !l.Up() {
		have = "it is down"
	}
	x.judge(x.main(), "its parent "+l.Name+", up", have, finding.Run("ip link set "+finding.Quote(l.Name)+" up"))
	if x.sandbox.MTU > l.MTU {
		x.warn(x.main(), fmt.Sprintf("an MTU up to the %d of %s", l.MTU, l.Name), fmt.Sprintf("%s has %d", x.sandbox.Name, x.sandbox.MTU),
			finding.Run(x.inside(fmt.Sprintf("ip link set %s mtu %d", finding.Quote(x.sandbox.Name), l.MTU))))
	}
}

// endUp looks at the host's end of a pair.
func (x *exam) endUp() {
	have := ""
	if !x.end.Up() {
		have = "it is down"
	}
	x.judge(x.main(), "its end on the host, "+x.end.Name+", up", have, finding.Run("ip link set "+finding.Quote(x.end.Name)+" up"))
	if x.end.MTU != x.sandbox.MTU && x.tunedMTU() == x.sandbox.MTU {
		x.note("tuning", "one MTU at both ends", fmt.Sprintf("%s has the %d that it was given and %s has %d: what is larger is lost", x.sandbox.Name, x.sandbox.MTU, x.end.Name, x.end.MTU), finding.Mend{})
	} else if x.end.MTU != x.sandbox.MTU {
		low := min(x.end.MTU, x.sandbox.MTU)
		if x.confs[0].MTU != 0 {
			low = x.confs[0].MTU
		}
		mend := fmt.Sprintf("ip link set %s mtu %d", finding.Quote(x.end.Name), low)
		if x.end.MTU == low {
			mend = x.inside(fmt.Sprintf("ip link set %s mtu %d", finding.Quote(x.sandbox.Name), low))
		}
		x.warn(x.main(), "one MTU at both ends", fmt.Sprintf("%s has %d and %s has %d: what is larger is lost", x.sandbox.Name, x.sandbox.MTU, x.end.Name, x.end.MTU), finding.Run(mend))
	}
}

// addBridge is the command that adds the bridge, with the MAC address by which
// its containers know their gateway: after another they get no answer until
// their neighbour entry times out.
func (x *exam) addBridge(name string) string {
	address := ""
	if mac, err := net.ParseMAC(x.row.HostMACs[name]); err == nil {
		address = " address " + mac.String()
	}
	name = finding.Quote(name)
	return "ip link add " + name + address + " type bridge && ip link set " + name + " up"
}

// bridge looks at the bridge and at the host's end as its port.
func (x *exam) bridge() (errs []error) {
	c := x.confs[0]
	b := x.hostLink(c.Bridge)
	switch {
	case b == nil:
		x.problem("bridge", "bridge "+c.Bridge+", up", "it is missing", finding.Run(x.addBridge(c.Bridge)))
	case !b.Up():
		x.problem("bridge", "bridge "+c.Bridge+", up", "it is down", finding.Run("ip link set "+finding.Quote(c.Bridge)+" up"))
	default:
		x.fine("bridge", "bridge "+c.Bridge+", up", "OK")
	}
	if x.end == nil || x.end.Kind != "veth" {
		x.problem("bridge", "an end on the host", "it is not there", again)
		return nil
	}
	x.endUp()
	x.port(b)
	if b == nil {
		return nil
	}
	x.bridgeMTU(b)
	x.uplink(b)
	x.learntElsewhere(b)
	if !c.IsGateway {
		return errs
	}
	errs = append(errs, x.gateways(), x.hostRoutes(), x.forwarding(), x.filter())
	x.outsideNeighbours()
	return errs
}

// port looks whether the host's end is the bridge's, as the configuration says.
func (x *exam) port(b *nl.Link) {
	c, name := x.confs[0], finding.Quote(x.end.Name)
	join := "ip link set " + name + " master " + finding.Quote(c.Bridge)
	if c.VLAN != 0 {
		join += fmt.Sprintf(" && bridge vlan add vid %d dev %s pvid untagged", c.VLAN, name)
	}
	if c.HairpinMode {
		join += " && bridge link set dev " + name + " hairpin on"
	}
	if c.PortIsolation {
		join += " && bridge link set dev " + name + " isolated on"
	}
	have := ""
	switch {
	case b == nil || x.end.Master == 0:
		have = "it is no port of any"
	case x.end.Master != b.Index:
		have = "it is a port of something else"
		if m := x.links[x.end.Master]; m != nil {
			have = "it is a port of " + m.Name
		}
	case c.HairpinMode && !flag(x.end.PortInfo, unix.IFLA_BRPORT_MODE):
		have = "its hairpin mode is off"
	case c.PortIsolation && !flag(x.end.PortInfo, unix.IFLA_BRPORT_ISOLATED):
		have = "its isolation is off"
	}
	x.judge("bridge", x.end.Name+" as a port of "+c.Bridge, have, finding.Run(join))
}

func flag(attrs []byte, want uint16) (on bool) {
	nl.Attrs(attrs, func(typ uint16, d []byte) { on = on || typ == want && nl.Uint8(d) != 0 })
	return on
}

// bridgeMTU looks whether what the container may send fits through the bridge.
func (x *exam) bridgeMTU(b *nl.Link) {
	if x.sandbox.MTU <= b.MTU {
		x.fine("bridge", fmt.Sprintf("an MTU up to the %d of %s", b.MTU, b.Name), fmt.Sprintf("%s has %d", x.sandbox.Name, x.sandbox.MTU))
		return
	}
	if x.end.MTU == x.sandbox.MTU { // else one fix has been told
		x.warn("bridge", fmt.Sprintf("an MTU up to the %d of %s", b.MTU, b.Name), fmt.Sprintf("%s has %d: larger packets are lost", x.sandbox.Name, x.sandbox.MTU),
			finding.Run(fmt.Sprintf("ip link set %s mtu %d", finding.Quote(b.Name), x.sandbox.MTU)))
	}
}

// learntElsewhere looks whether the bridge sends the container's frames to its port.
func (x *exam) learntElsewhere(b *nl.Link) {
	for _, n := range x.learnt[x.sandbox.MAC.String()] {
		port := x.links[n.Index]
		if n.Bridge != b.Index || port == nil || n.Index == x.end.Index || n.Index == b.Index {
			continue
		}
		x.problem("bridge", fmt.Sprintf("frames to %s over %s", n.MAC, x.end.Name), fmt.Sprintf("%s sends them to %s", b.Name, port.Name),
			finding.Run(fmt.Sprintf("bridge fdb del %s dev %s master", n.MAC, finding.Quote(port.Name))))
	}
}

// gateways looks for the gateways' addresses.
func (x *exam) gateways() error {
	name := x.gatewayLink()
	gw := x.hostLink(name)
	if gw == nil {
		x.problem("bridge", "interface "+name+" of the gateway", "it is missing", again)
		return nil
	}
	if name != x.confs[0].Bridge {
		have := ""
		if !gw.Up() {
			have = "it is down"
		}
		x.judge("bridge", "interface "+name+" of the gateway, up", have, finding.Run("ip link set "+finding.Quote(name)+" up"))
	}
	addrs, err := x.hostAddrs(gw.Index)
	if err != nil {
		return err
	}
	var seen []netip.Prefix
	for _, h := range x.hops() {
		p := netip.PrefixFrom(h.gateway, h.addr.Bits())
		if !h.gateway.IsValid() || slices.Contains(seen, p) {
			continue
		}
		seen = append(seen, p)
		x.gateway(name, p, addrs)
	}
	return nil
}

func (x *exam) gateway(name string, p netip.Prefix, addrs []nl.Addr) {
	dev := finding.Quote(name)
	have, mend := "", "ip addr replace "+p.String()+" dev "+dev
	i := slices.IndexFunc(addrs, func(a nl.Addr) bool { return a.Prefix == p })
	switch key := "net/ipv6/conf/" + name + "/disable_ipv6"; {
	case i >= 0 && addrs[i].Flags&unix.IFA_F_DADFAILED != 0:
		have = "another on the link has it (dadfailed)"
		mend = "ip addr del " + p.String() + " dev " + dev + " && ip addr add " + p.String() + " dev " + dev
	case i >= 0:
	case p.Addr().Is6():
		have, mend = "it is missing", mend+" nodad"
		if v, err := x.sysctl(key); err == nil && v != "0" {
			have, mend = "it is missing, and IPv6 is off there", setting(key, "0")+" && "+mend
		}
	default:
		have = "it is missing"
	}
	x.judge("bridge", "gateway "+p.String()+" on "+name, have, finding.Run(mend))
}

// hostRoutes looks whether the host sends what is for the container to it.
func (x *exam) hostRoutes() error {
	name := x.gatewayLink()
	gw := x.hostLink(name)
	if gw == nil || x.failed(x.main()) {
		return nil // which leads elsewhere
	}
	for _, h := range x.hops() {
		a := h.addr.Addr()
		r, err := x.conn.RouteTo(a)
		have := ""
		switch {
		case nl.NoRoute(err):
			have = "there is none"
		case err != nil:
			return err
		case r.Index != gw.Index:
			have = "it leads elsewhere"
			if l := x.links[r.Index]; l != nil {
				have = "it leads to " + l.Name
			}
		}
		mend := fmt.Sprintf("ip route replace %s dev %s", netip.PrefixFrom(a, a.BitLen()), finding.Quote(name))
		rules, err := x.hostRules()
		if err != nil {
			return err
		}
		if rule := leads(rules, a, netip.Addr{}); rule != nil && have != "" {
			have += fmt.Sprintf(": rule %d, %s, comes before the main table", rule.Priority, rule)
			mend = before(*rule, "to", together(rule.Dst, h))
		}
		x.judge(x.main(), fmt.Sprintf("the host's route to %s over %s", a, name), have, finding.Run(mend))
		if err := x.wayOut(h, gw); err != nil {
			return err
		}
	}
	return nil
}

// forwarding looks whether the host forwards the families of the addresses.
func (x *exam) forwarding() error {
	var errs []error
	for _, f := range []struct {
		v6        bool
		name, key string
	}{{false, "IPv4", "net/ipv4/ip_forward"}, {true, "IPv6", "net/ipv6/conf/all/forwarding"}} {
		if !slices.ContainsFunc(x.hops(), func(h hop) bool { return h.addr.Addr().Is6() == f.v6 && h.gateway.IsValid() }) {
			continue
		}
		v, err := x.sysctl(f.key)
		if err != nil {
			return err
		}
		have := ""
		if v == "0" {
			have = "it is off"
		}
		x.judge(x.main(), string(Forwarding(f.name)), have, finding.Run(setting(f.key, "1")))
		x.about(Forwarding(f.name))
		if have == "" && !f.v6 { // which has one switch for all
			errs = append(errs, x.forwardingOn(append([]string{x.gatewayLink()}, x.uplinks()...)))
		}
	}
	return errors.Join(errs...)
}

// forwardingOn looks whether the host forwards what comes in over the links.
func (x *exam) forwardingOn(names []string) error {
	for _, name := range names {
		key := "net/ipv4/conf/" + name + "/forwarding"
		v, err := x.sysctl(key)
		if errors.Is(err, fs.ErrNotExist) {
			continue // of which others tell
		}
		if err != nil {
			return err
		}
		if v == "0" {
			x.problem(x.main(), "forwarding of IPv4 from "+name, "it is off", finding.Run(setting(key, "1")))
		}
	}
	return nil
}

// uplinks are the links of IPv4's default routes, and the one that the host reaches
// the world by.
func (w *worker) uplinks() []string {
	// A host without a way out has none.
	names, _ := look.Once(w.look, "uplinks", func() ([]string, error) { return w.readUplinks(), nil })
	return names
}

func (w *worker) readUplinks() (names []string) {
	add := func(r nl.Route) {
		if l := w.links[r.Index]; l != nil && !slices.Contains(names, l.Name) {
			names = append(names, l.Name)
		}
	}
	routes, _ := w.conn.Routes(unix.RT_TABLE_MAIN) // without them the other way is left
	for _, r := range routes {
		if r.Dst.Bits() == 0 && r.Dst.Addr().Is4() {
			add(r)
		}
	}
	if r, err := w.toWorld(world4); err == nil {
		add(r)
	}
	return names
}

// filter looks whether answers are dropped that come over another of several
// uplinks than the one they were asked on.
func (x *exam) filter() error {
	uplinks := x.uplinks()
	if len(uplinks) < 2 {
		return nil
	}
	for _, name := range uplinks {
		strict, err := strictest(x.sysctl, name)
		if err != nil {
			return err
		}
		if strict != "" {
			x.note(x.main(), fmt.Sprintf("answers over any of the uplinks %v", uplinks), "rp_filter is strict on "+name+": what comes where no answer would go is dropped",
				finding.Run(setting(strict, "2")))
		}
	}
	return nil
}

// outsideNeighbours looks at what the host believes of the container.
func (x *exam) outsideNeighbours() {
	gw := x.hostLink(x.gatewayLink())
	if gw == nil {
		return
	}
	for _, h := range x.hops() {
		n, known := x.neighs[neighbour{gw.Index, h.addr.Addr()}]
		if !known {
			continue
		}
		forget := finding.Run("ip neigh del " + h.addr.Addr().String() + " dev " + finding.Quote(gw.Name))
		want := h.addr.Addr().String() + " as a neighbour of the host"
		switch {
		case len(n.MAC) > 0 && !bytes.Equal(n.MAC, x.sandbox.MAC):
			x.problem(x.main(), want, fmt.Sprintf("the host takes it to be at %s, and it is at %s", n.MAC, x.sandbox.MAC), forget)
			x.isSymptom()
		case n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0:
			x.note(x.main(), want, "it did not answer when it was last asked", forget)
		}
	}
}
