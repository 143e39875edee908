package lint

import (
	"maps"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/docs/schema"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// sequence checks the order of a list's plugins: one makes the interface, and
// those after it work on that.
func (l *linter) sequence(n *list) {
	var first *entry // that makes an interface, or may
	for i, e := range n.plugins {
		makes, follows := is(e.typ, plugin.Interface), is(e.typ, plugin.Chained)
		switch {
		case e.typ == loopbackType:
			l.loopback(n, e)
		case makes && first != nil && ours(first):
			l.say(Error, e.document, e.conf.at, "%s: %s has made the interface already, which has but one name; put this into a list of its own", e.typ, first.typ)
		case follows && first == nil && !slices.ContainsFunc(n.plugins[:i], isLoopback):
			l.say(Error, e.document, e.conf.at, "%s: works on the interface that a plugin before it made: %s", e.typ, mend(n.plugins[i:]))
		case follows && first != nil:
			l.fits(first, e)
		}
		if first == nil && !follows && e.typ != loopbackType {
			first = e
		}
	}
}

// ours reports whether the plugin is known to make an interface.
func ours(e *entry) bool { return is(e.typ, plugin.Interface) }

func isLoopback(e *entry) bool { return e.typ == loopbackType }

// mend says where a plugin belongs that has nothing to work on.
func mend(rest []*entry) string {
	for _, e := range rest {
		if !is(e.typ, plugin.Chained) && !isLoopback(e) {
			return "move it behind " + e.typ
		}
	}
	return "there is none"
}

// loopback checks the plugin that has lo for its interface, whatever the
// runtime calls the network's.
func (l *linter) loopback(n *list, e *entry) {
	if len(n.plugins) > 1 {
		l.say(Warning, e.document, e.conf.at, "loopback: brings lo up, which runtimes do beside every list; what stands behind it takes lo for the network's interface")
	}
}

// fits checks whether a chained plugin can work on what the first one makes.
func (l *linter) fits(first, e *entry) {
	switch {
	case e.typ == "bandwidth" && ours(first) && first.typ != "bridge" && first.typ != "ptp":
		level := Warning // where nobody asks for a limit there is no trouble
		if limited(e) {
			level = Error
		}
		l.say(level, e.document, e.conf.at, "bandwidth: can limit the veth pairs of bridge and ptp only, not what %s makes", first.typ)
	case e.typ == "portmap" && (first.typ == "macvlan" || first.typ == "ipvlan"):
		l.say(Warning, e.document, e.conf.at, "portmap: the host does not reach the containers of %s on it, and cannot pass published ports on to them", first.typ)
	case e.typ == "dnsname" && ours(first) && first.typ != "bridge" && first.typ != "ptp":
		l.say(Error, e.document, e.conf.at, "dnsname: the host has no address on a network of %s at which names could be answered: use bridge with isGateway, or ptp", first.typ)
	case e.typ == "dnsname" && first.typ == "bridge" && !first.conf.isTrue("isGateway") && !first.conf.isTrue("isDefaultGateway"):
		l.say(Error, e.document, e.conf.at, "dnsname: the host has no address on the network at which names could be answered: set isGateway of bridge (an internal network lacks a default route, not the address)")
	case e.typ == "firewall" && strings.HasPrefix(e.conf.string("ingressPolicy"), "isolated") && ours(first) && first.typ != "bridge":
		l.say(Error, e.document, e.conf.get("ingressPolicy").at, "firewall: isolated keeps the ports of a bridge apart, and %s has none", first.typ)
	}
}

// limited reports whether bandwidth has limits of its own.
func limited(e *entry) bool {
	return e.conf.given("ingressRate") || e.conf.given("egressRate") || e.conf.given("ingressBurst") || e.conf.given("egressBurst")
}

// capabilities checks what runtimes are told that they may give to the plugins.
func (l *linter) capabilities(n *list) {
	for _, e := range n.plugins {
		caps := e.conf.get("capabilities")
		switch {
		case e.typ == "portmap" && !caps.isTrue("portMappings") && !e.conf.get("runtimeConfig").given("portMappings"):
			l.say(Warning, e.document, e.conf.at, `portmap: without "capabilities": {"portMappings": true} runtimes do not tell it of ports, and none is published`)
		case e.typ == "bandwidth" && !caps.isTrue("bandwidth") && !limited(e) && !e.conf.get("runtimeConfig").given("bandwidth"):
			l.say(Warning, e.document, e.conf.at, `bandwidth: without limits, and without "capabilities": {"bandwidth": true} by which runtimes tell of them, it limits nothing`)
		}
		if caps == nil || caps.kind == 'n' {
			continue
		}
		if caps.kind != '{' {
			l.say(Error, e.document, caps.at, "capabilities: not an object: want {\"portMappings\": true}")
		}
		for _, m := range caps.members {
			if m.value.kind != 't' && m.value.kind != 'f' {
				l.say(Error, e.document, m.value.at, "capability %q: want true or false", m.key)
			} else if m.value.kind == 't' {
				l.capability(n, e, m)
			}
		}
	}
}

// capability checks whether somebody reads what a plugin of ours is given.
func (l *linter) capability(n *list, e *entry, m member) {
	reads := append(l.reads(e.typ), l.reads(e.ipamType)...)
	if !isPlugin(e.typ) || slices.Contains(reads, m.key) || e.ipamType != "" && !isIPAM(e.ipamType) {
		return
	}
	var others []string // of the list
	for _, o := range n.plugins {
		if o != e && isPlugin(o.typ) && slices.Contains(l.reads(o.typ), m.key) {
			others = append(others, o.typ)
		}
	}
	var owners, known []string
	for _, name := range schema.Names() {
		if slices.Contains(l.reads(name), m.key) {
			owners = append(owners, name)
		}
		known = append(known, l.reads(name)...)
	}
	switch {
	case len(others) > 0:
		l.say(Warning, e.document, m.at, "capability %q: %s does nothing with it; in this list it is for %s", m.key, e.typ, strings.Join(slices.Compact(others), ", "))
	case len(owners) > 0:
		l.say(Warning, e.document, m.at, "capability %q: %s does nothing with it, nor does the rest of the list; it is for %s", m.key, e.typ, strings.Join(owners, ", "))
	default:
		l.say(Warning, e.document, m.at, "capability %q: %s does nothing with it%s", m.key, e.typ, meant(m.key, known))
	}
}

// reads returns the capabilities that a plugin of ours reads.
func (l *linter) reads(plugin string) []string {
	s := l.properties(plugin)
	given := s.Definitions["runtimeConfig"] // of an IPAM plugin
	if given == nil {
		given = s.Properties["runtimeConfig"]
	}
	if given == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(given.Properties))
}
