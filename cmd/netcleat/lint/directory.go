package lint

import (
	"cmp"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// byDirectory groups lists by the directory that they are in, each in the order
// in which runtimes read it.
func byDirectory(lists []*list) (dirs [][]*list) {
	at := map[string]int{}
	for _, n := range lists {
		dir := filepath.Dir(n.file)
		i, known := at[dir]
		if !known {
			i = len(dirs)
			at[dir] = i
			dirs = append(dirs, nil)
		}
		if !slices.ContainsFunc(dirs[i], func(o *list) bool { return filepath.Base(o.file) == filepath.Base(n.file) }) {
			dirs[i] = append(dirs[i], n)
		}
	}
	for _, lists := range dirs {
		slices.SortFunc(lists, func(a, b *list) int { return cmp.Compare(a.file, b.file) })
	}
	return dirs
}

// directory checks the networks of one directory against each other.
func (l *linter) directory(lists []*list) {
	if first := lists[0]; len(lists) > 1 && len(first.plugins) == 1 && isLoopback(first.plugins[0]) {
		l.say(Warning, first.document, first.root.at, "network %q: containerd takes the first list of a directory for its pods, which have no network but lo then", first.name)
	}
	for i, n := range lists {
		for _, o := range lists[:i] {
			if n.name != "" && n.name == o.name {
				l.say(Warning, n.document, n.root.get("name").at, "network %q: is also in %s, which runtimes find first", n.name, o.where(o.root.get("name").at))
				continue
			}
			l.bridges(n, o)
			l.masters(n, o)
			l.overlaps(n, o)
			l.uplinks(n, o)
		}
	}
}

// way is how a network's containers are reached.
type way struct {
	main   *entry // makes the interface; nil is another's plugin
	link   string // which networks may share
	routed bool   // the host has a route into the subnets
}

func wayOf(n *list) way {
	for _, e := range n.plugins {
		if !ours(e) {
			continue
		}
		w := way{main: e}
		switch e.typ {
		case "bridge":
			w.link = "bridge " + bridgeOf(e)
			w.routed = gateway(e)
		case "ptp":
			w.link, w.routed = "ptp "+n.name, true
		case "macvlan", "ipvlan":
			w.link = "master " + e.conf.string("master")
		case "vlan":
			w.link = "master " + e.conf.string("master") + cmp.Or(vlanOf(e, "vlanId"), ".0")
		default:
			w.link = e.typ + " " + n.name
		}
		return w
	}
	return way{}
}

func bridgeOf(e *entry) string { return cmp.Or(e.conf.string("bridge"), "cni0") + vlanOf(e, "vlan") }

// vlanOf is what tells the VLANs of one link apart.
func vlanOf(e *entry, key string) string {
	if v := e.conf.get(key); v != nil && string(v.raw) != "0" {
		return "." + string(v.raw)
	}
	return ""
}

// gateway reports whether the bridge has the gateway's address.
func gateway(e *entry) bool { return e.conf.isTrue("isGateway") || e.conf.isTrue("isDefaultGateway") }

// overlaps compares the subnets of two networks. Where the host routes into both
// they must not overlap; where they share a link they must hand out different
// addresses, since each network has leases of its own.
func (l *linter) overlaps(n, o *list) {
	a, b := n.way, o.way
	shared := a.link == b.link && a.link != ""
	apart := !shared && a.main != nil && b.main != nil && !a.routed && !b.routed
	for _, p := range n.pools {
		for _, q := range o.pools {
			if apart || !p.overlaps(q) {
				continue
			}
			other := o.name + " (" + q.where(q.at) + ")"
			switch {
			case shared && p.shares(q):
				l.say(Error, p.document, p.at, "range %s: network %s is on the same %s, and hands out the same addresses", p, other, a.link)
			case shared:
			case a.routed && b.routed:
				l.say(Error, p.document, p.at, "subnet %s: overlaps with %s of network %s, and the host routes into both", p.Subnet, q.Subnet, other)
			default:
				l.say(Warning, p.document, p.at, "subnet %s: overlaps with %s of network %s", p.Subnet, q.Subnet, other)
			}
		}
	}
}

// masters compares what two networks make of one master: the kernel gives its
// traffic to one kind of sublink, and all that are ipvlan have one mode and flag.
func (l *linter) masters(n, o *list) {
	a, b := n.way.main, o.way.main
	if n.way.link != o.way.link || !strings.HasPrefix(n.way.link, "master ") || a.conf.isTrue("linkInContainer") || b.conf.isTrue("linkInContainer") {
		return
	}
	other := "network " + o.name + " (" + b.where(b.conf.at) + ")"
	switch {
	case a.typ == "vlan" && b.typ == "vlan":
		l.say(Warning, a.document, a.conf.at, "vlan: %s has the same VLAN of the same master, of which there is only one", other)
	case a.typ != b.typ && a.typ != "vlan" && b.typ != "vlan":
		l.say(Warning, a.document, a.conf.at, "%s: %s is %s on the same master, which can have one kind at a time", a.typ, other, b.typ)
	case a.typ == "ipvlan" && (modeOf(a) != modeOf(b) || flagOf(a) != flagOf(b)):
		l.say(Warning, a.document, a.conf.at, "ipvlan: %s has mode %s and flag %s on the same master, and this %s and %s: the kernel keeps one of each for a master", other, modeOf(b), flagOf(b), modeOf(a), flagOf(a))
	}
}

func modeOf(e *entry) string { return cmp.Or(e.conf.string("mode"), "l2") }
func flagOf(e *entry) string { return cmp.Or(e.conf.string("flag"), "bridge") }

// uplinks compares the VXLAN interfaces of two networks.
func (l *linter) uplinks(n, o *list) {
	a, b := uplinkOf(n), uplinkOf(o)
	if a == nil || b == nil || string(a.raw) != string(b.raw) {
		return
	}
	l.say(Error, n.way.main.document, a.at, "vxlan id %s: network %s (%s) has the same", a.raw, o.name, o.way.main.where(b.at))
}

// uplinkOf returns the id of a network's VXLAN interface; nil is none.
func uplinkOf(n *list) *value {
	if n.way.main == nil || n.way.main.typ != "bridge" {
		return nil
	}
	return n.way.main.conf.get("vxlan").get("id")
}

// bridges compares the gateways that two networks give one bridge.
func (l *linter) bridges(n, o *list) {
	a, b := n.way, o.way
	if a.main == nil || b.main == nil || a.main.typ != "bridge" || a.link != b.link || !a.routed || !b.routed {
		return
	}
	for _, p := range n.pools {
		for _, q := range o.pools {
			x, y := netip.PrefixFrom(p.Gateway, p.Subnet.Bits()), netip.PrefixFrom(q.Gateway, q.Subnet.Bits())
			switch {
			case x == y || x.Addr().Is4() != y.Addr().Is4() || x.Addr().Is6() && !p.overlaps(q):
			case a.main.conf.isTrue("forceAddress") || b.main.conf.isTrue("forceAddress"):
				l.say(Warning, p.document, p.at, "%s: gets %s here and %s in network %s (%s): forceAddress takes the other's away from its containers", a.link, x, y, o.name, q.where(q.at))
			default:
				l.say(Error, p.document, p.at, "%s: gets %s here and %s in network %s (%s): whichever comes second is refused", a.link, x, y, o.name, q.where(q.at))
			}
		}
	}
}
