package compat

import (
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/semver"
)

const (
	hostLocal4 = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}`
	hostLocal  = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd07::/64"}]], "routes": [{"dst": "0.0.0.0/0"}]}`
	static     = `"ipam": {"type": "static", "addresses": [{"address": "10.7.0.9/24", "gateway": "10.7.0.1"}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.7.0.1"]}}`
	chained    = `"prevResult": {"cniVersion": "1.1.0", "interfaces": [{"mac": "02:00:00:00:00:01", "name": "eth0", "sandbox": "/run/netns/none"}], "ips": [{"address": "10.7.0.2/24", "gateway": "10.7.0.1", "interface": 0}]}`

	leases = `cd /var/lib/cni/networks/$NET 2>/dev/null && for f in *; do echo "$f:$(cat -A "$f")"; done || echo none`
	links  = `ip -o link 2>/dev/null | awk -F '[ :@]+' '{print $2}' | sed 's/veth.*/VETH/' | sort; ip -n $NET -o link 2>/dev/null | awk -F '[ :@]+' '{print "in", $2}'
		[ ! -e /run/netns/missing ] || echo file in the place of the sandbox`
)

var plugins = []string{
	"bandwidth", "bridge", "dhcp", "dummy", "firewall", "host-device", "host-local", "ipvlan", "loopback",
	"macvlan", "portmap", "ptp", "sbr", "static", "tap", "tuning", "vlan", "vrf",
}

// working are configurations that attach.
var working = []struct{ name, plugin, conf string }{
	{"bridge layer 3", "bridge", `"bridge": "br-a", "isGateway": true, "ipMasq": true, ` + hostLocal},
	{"bridge static", "bridge", `"bridge": "br-b", "isGateway": true, "hairpinMode": true, ` + static},
	{"bridge with two default routes", "bridge", `"bridge": "br-b", "isDefaultGateway": true, ` + static},
	{"bridge layer 2", "bridge", `"bridge": "br-c"`},
	{"ptp", "ptp", `"ipMasq": true, ` + hostLocal},
	{"ptp static", "ptp", `"mtu": 1400, ` + static},
	{"macvlan", "macvlan", `"master": "lan0", ` + hostLocal4}, // theirs may fail to settle an IPv6 address in time
	{"macvlan layer 2", "macvlan", `"master": "lan0", "mode": "private"`},
	{"loopback", "loopback", ``},
	{"host-local", "host-local", hostLocal},
	{"static", "static", static},
}

// meta are the chained plugins, which have something to remove only where
// another made an interface.
var meta = []struct{ name, plugin, conf string }{
	{"bandwidth", "bandwidth", ``},
	{"firewall", "firewall", `"backend": "iptables"`},
	{"portmap", "portmap", `"capabilities": {"portMappings": true}`},
	{"sbr", "sbr", ``},
	{"tuning", "tuning", `"sysctl": {"net.ipv4.conf.all.log_martians": "1"}`},
	{"vrf", "vrf", `"vrfname": "blue"`},
}

// stories are all, in order.
func stories() []story {
	all := []story{versions()}
	for _, w := range working {
		all = append(all, attachment(w.name, w.plugin, w.conf))
	}
	for _, m := range meta {
		all = append(all, removal(m.name, m.plugin, m.conf), removal(m.name+" chained", m.plugin, join(m.conf, chained)))
	}
	for _, p := range []string{"bridge", "ptp", "macvlan", "ipvlan", "vlan", "dummy", "tap", "host-device"} {
		all = append(all, removal(p+" never added", p, everything))
	}
	for _, v := range []string{"0.2.0", "0.4.0"} {
		all = append(all,
			attachment("bridge", "bridge", `"bridge": "br-v", "isGateway": true, `+hostLocal).in(v),
			attachment("loopback", "loopback", "").in(v),
			attachment("macvlan", "macvlan", `"master": "lan0", `+static).in(v),
		)
	}
	return slices.Concat(all, conflicts(), refusals(), []story{texts()})
}

// everything has a key for each of the main plugins.
const everything = `"bridge": "br-n", "master": "lan0", "device": "lan9", "vlanId": 5, ` + hostLocal

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

// in is the story with a version of the specification.
func (s story) in(version string) story {
	s.name += " in " + version
	for i := range s.steps {
		s.steps[i].version = version
		if s.steps[i].verb == "CHECK" && !semver.AtLeast(version, "0.4.0") { // which brought CHECK
			s.steps[i].works = false
		}
	}
	return s
}

// versions asks each plugin what it is.
func versions() story {
	s := story{name: "versions"}
	for _, p := range plugins {
		s.steps = append(s.steps,
			step{name: "VERSION of " + p, verb: "VERSION", plugin: p},
			step{name: "VERSION of " + p + " without a version", verb: "VERSION", plugin: p, conf: "!{}"},
			step{name: "about " + p, plugin: p, conf: "!"},
			step{name: "unknown verb to " + p, verb: "FETCH", plugin: p},
		)
	}
	return s
}

// attachment is the life of one, with the calls that runtimes repeat.
func attachment(name, plugin, conf string) story {
	at := func(label, verb, conf string, env ...string) step {
		return step{name: label, verb: verb, plugin: plugin, conf: conf, env: env}
	}
	works := func(s step) step {
		s.works = true
		return s
	}
	look := func(label, script string) step { return step{name: label, script: script} }
	checked := join(conf, `"prevResult": PREV`)
	return story{name, []step{
		works(at("ADD", "ADD", conf)),
		look("leases", leases),
		look("links", links),
		works(at("CHECK", "CHECK", checked)),
		at("CHECK without prevResult", "CHECK", conf),
		at("STATUS", "STATUS", conf),
		at("second ADD", "ADD", conf),
		look("leases after the second ADD", leases),
		at("CHECK after the second ADD", "CHECK", checked),
		at("DEL of another container", "DEL", conf, "CNI_CONTAINERID=another", "CNI_NETNS="),
		look("leases after the DEL of another", leases),
		works(at("DEL", "DEL", checked)),
		look("leases after DEL", leases),
		look("links after DEL", links),
		works(at("second DEL", "DEL", checked)),
		at("CHECK after DEL", "CHECK", checked),
		at("DEL without sandbox", "DEL", conf, "CNI_NETNS="),
		at("DEL with a sandbox that is missing", "DEL", conf, "CNI_NETNS=/run/netns/missing"),
		at("DEL without container", "DEL", conf, "CNI_CONTAINERID="),
		at("ADD without sandbox", "ADD", conf, "CNI_NETNS="),
		at("ADD into a sandbox that is missing", "ADD", conf, "CNI_NETNS=/run/netns/missing"),
		at("ADD without interface", "ADD", conf, "CNI_IFNAME="),
		at("ADD with a bad interface", "ADD", conf, "CNI_IFNAME=a/b"),
		at("ADD without container", "ADD", conf, "CNI_CONTAINERID="),
		at("ADD with a bad container", "ADD", conf, "CNI_CONTAINERID=.."),
		look("leases after refusals", leases),
		look("links after refusals", links),
		at("GC", "GC", conf+comma(conf)+`"cni.dev/valid-attachments": []`),
	}}
}

func comma(conf string) string {
	if conf == "" {
		return ""
	}
	return ", "
}

// removal is DEL of what was never added.
func removal(name, plugin, conf string) story {
	del := func(label string, env ...string) step {
		return step{name: label, verb: "DEL", plugin: plugin, conf: conf, env: env}
	}
	return story{"DEL " + name, []step{
		del("DEL"), del("second DEL"),
		del("DEL without sandbox", "CNI_NETNS="),
		del("DEL with a sandbox that is missing", "CNI_NETNS=/run/netns/missing"),
		{name: "links", script: links},
	}}
}

// conflicts are configurations that attach, where something is there already.
func conflicts() []story {
	add := func(name, plugin, conf string, env ...string) step {
		return step{name: name, verb: "ADD", plugin: plugin, conf: conf, env: env}
	}
	first := func(s step) step {
		s.works = true
		return s
	}
	del := func(plugin, conf string, env ...string) step {
		return step{name: "DEL", verb: "DEL", plugin: plugin, conf: conf, env: env}
	}
	const (
		another = "CNI_CONTAINERID=another"
		none    = "CNI_NETNS="
		lease   = `"ipam": {"type": "host-local", "subnet": "10.7.0.0/24"}`
		iptable = `"backend": "iptables", ` + chained
		port    = `"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}, ` + iptable
	)
	return []story{
		{"port of another container", []step{
			first(add("ADD", "portmap", port)), add("ADD of another container", "portmap", port, another),
			del("portmap", port, another, none), del("portmap", port),
		}},
		{"portmap twice in a list", []step{first(add("ADD", "portmap", port)), add("second ADD", "portmap", port), del("portmap", port)}},
		{"firewall twice in a list", []step{first(add("ADD", "firewall", iptable)), add("second ADD", "firewall", iptable), del("firewall", iptable)}},
		{"address reserved by an empty file", []step{
			{name: "reserve", script: `mkdir -p /var/lib/cni/networks/$NET; touch /var/lib/cni/networks/$NET/10.7.0.2`},
			first(add("ADD", "host-local", lease)), del("host-local", lease),
		}},
		{"interface eth%d", []step{
			add("ADD", "bridge", `"bridge": "br-p"`, "CNI_IFNAME=eth%d"), {name: "links", script: links}, del("bridge", `"bridge": "br-p"`, "CNI_IFNAME=eth%d"),
		}},
	}
}

// refused are configurations that are wrong, or look so.
var refused = []struct{ plugin, conf string }{
	{"bridge", `"bridge": "a-name-that-is-too-long"`},
	{"bridge", `"bridge": "br-d", "mtu": -1`},
	{"bridge", `"bridge": "br-d", "mtu": 70000`},
	{"bridge", `"bridge": "br-d", "mtu": "1500"`},
	{"bridge", `"bridge": "br-d", "vlan": 4095`},
	{"bridge", `"bridge": "br-d", "vlanTrunk": [{"minID": 9, "maxID": 3}]`},
	{"bridge", `"bridge": "br-d", "vlanTrunk": [{"minID": 9}]`},
	{"bridge", `"bridge": "br-d", "hairpinMode": true, "promiscMode": true`},
	{"bridge", `"bridge": "br-d", "disableContainerInterface": true, ` + static},
	{"bridge", `"bridge": "br-d", "ipMasq": true, "ipMasqBackend": "pf", ` + static},
	{"bridge", `"bridge": "br-d", "args": {"cni": {"mac": "nonsense"}}`},
	{"bridge", `"bridge": "br-d", "ipam": {"type": "missing-ipam"}`},
	{"bridge", `"bridge": "lo"`},
	{"bridge", `"bridge": "."`},
	{"bridge", `"bridge": "br-d", "ipam": {"type": "static", "addresses": [{"address": "10.7.0.9/24"}], "routes": [{"dst": "10.8.0.0/24", "priority": -1}]}`},
	{"bridge", `"bridge": "br-d", "unheard": {"of": 1}`},
	{"ptp", ``},
	{"ptp", `"ipam": {"type": "static"}`},
	{"ptp", `"mtu": -1, ` + static},
	{"ptp", `"ipam": {"type": "static", "addresses": [{"address": "10.7.0.9/24", "gateway": "0.0.0.0"}]}`},
	{"macvlan", `"master": "none0"`},
	{"macvlan", `"master": "lan0", "mode": "sideways"`},
	{"macvlan", `"master": "lan0", "mtu": 9000`},
	{"macvlan", `"master": "lan0", "mtu": -1`},
	{"ipvlan", `"master": "lan0", "mode": "l5", ` + static},
	{"vlan", `"vlanId": 5`},
	{"vlan", `"master": "lan0", "vlanId": 5000`},
	{"host-device", ``},
	{"host-device", `"device": "none0"`},
	{"host-device", `"device": "lo"`},
	{"host-local", ``},
	{"host-local", `"ipam": {"type": "host-local"}`},
	{"host-local", `"ipam": {"type": "host-local", "subnet": "10.7.0.0/33"}`},
	{"host-local", `"ipam": {"type": "host-local", "subnet": "10.7.0.0/31"}`},
	{"host-local", `"ipam": {"type": "host-local", "subnet": "10.7.0.5/24"}`},
	{"host-local", `"ipam": {"type": "host-local", "subnet": "10.7.0.0/24", "rangeStart": "10.8.0.1"}`},
	{"host-local", `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "10.7.0.0/25"}]]}`},
	{"host-local", `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}, {"subnet": "fd07::/64"}]]}`},
	{"host-local", `"ipam": {"type": "host-local", "subnet": "10.7.0.0/24"}, "args": {"cni": {"ips": ["10.9.0.1"]}}`},
	{"static", `"ipam": {"type": "static"}`},
	{"static", `"ipam": {"type": "static", "addresses": [{"address": "10.7.0.9"}]}`},
	{"static", `"ipam": {"type": "static", "addresses": [{"address": "10.7.0.9/24", "gateway": "x"}]}`},
	{"dhcp", `"ipam": {"type": "dhcp", "provide": [{"option": "nonsense", "value": "x"}]}`},
	{"dhcp", `"ipam": {"type": "dhcp", "daemonSocketPath": "/run/none.sock"}`},
	{"portmap", ``},
	{"portmap", `"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 0, "protocol": "tcp"}]}, ` + chained},
	{"portmap", `"backend": "pf", "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}, ` + chained},
	{"portmap", `"backend": "nftables", "conditionsV4": ["ip", "protocol", "tcp"], "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}, ` + chained},
	{"firewall", ``},
	{"firewall", `"backend": "pf", ` + chained},
	{"firewall", `"ingressPolicy": "closed", ` + chained},
	{"firewall", `"backend": "iptables", "ingressPolicy": "same-bridge", ` + chained},
	{"bandwidth", `"ingressRate": 8000, ` + chained},
	{"bandwidth", `"ingressBurst": 8000, ` + chained},
	{"tuning", `"mac": "nonsense", ` + chained},
	{"tuning", `"sysctl": {"net.ipv4.none": "1"}, ` + chained},
	{"tuning", `"sysctl": {"kernel.hostname": "x"}, ` + chained},
	{"sbr", ``},
	{"vrf", chained},
	{"vrf", `"vrfname": "blue"`},
}

// texts are refusals whose message callers match: it is the reference's, and what
// explains it is in the details.
func texts() story {
	const (
		noIPs   = `"prevResult": {"cniVersion": "1.1.0", "interfaces": [{"mac": "02:00:00:00:00:01", "name": "eth0", "sandbox": "/run/netns/none"}]}`
		twoSets = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "10.8.0.0/24"}]]}`
		twoIPs  = `"ipam": {"type": "static", "addresses": [{"address": "10.7.0.9/24"}, {"address": "10.8.0.9/24"}]}`
	)
	s := story{name: "texts"}
	say := func(verb, plugin, conf, version string, env ...string) {
		name := strings.TrimSpace(verb + " " + plugin + " " + version + " " + conf + " " + strings.Join(env, " "))
		s.steps = append(s.steps, step{name: name, verb: verb, plugin: plugin, conf: conf, version: version, env: env, text: true},
			step{name: "clean", script: "ip -n $NET link del eth0 2>/dev/null || true"}) // theirs leaves it
	}
	for _, p := range []string{"bridge", "ptp", "macvlan", "vlan", "dummy", "tap", "host-device", "loopback", "portmap", "firewall", "tuning"} {
		say("CHECK", p, everything, "0.3.1")
		say("CHECK", p, everything, "0.1.0")
	}
	for _, p := range []string{"macvlan", "host-device", "static", "firewall", "tuning"} {
		say("CHECK", p, `"master": "lan0", "vlanId": 5, "device": "lan0"`, "")
	}
	for _, v := range []string{"0.1.0", "0.2.0"} {
		say("ADD", "bridge", `"bridge": "br-w"`, v)
		say("ADD", "macvlan", `"master": "lan0"`, v)
		say("ADD", "host-local", twoSets, v)
		say("ADD", "static", twoIPs, v)
	}
	for _, c := range []struct{ plugin, conf string }{
		{"macvlan", `"master": "lan0", "mtu": 9000`},
		{"vlan", `"master": "lan0", "vlanId": 5, "mtu": 9000`},
		{"macvlan", `"master": "lan0", "mode": "sideways"`},
		{"ipvlan", `"master": "lan0", "mode": "l5"`},
		{"ipvlan", `"master": "none0"`},
		{"bridge", `"bridge": "lo"`},
		{"bridge", `"bridge": "br-d", "vlanTrunk": [{"minID": 9, "maxID": 3}]`},
		{"bridge", `"bridge": "br-d", "vlanTrunk": [{"minID": 5000, "maxID": 5001}]`},
		{"bridge", `"bridge": "br-d", "vlanTrunk": [{"id": 5000}]`},
		{"ptp", ``},
		{"host-device", `"device": "none0"`},
		{"host-device", ``},
		{"sbr", ``},
		{"sbr", noIPs},
		{"sbr", chained},
		{"tuning", ``},
		{"firewall", ``},
		{"vrf", `"vrfname": "blue"`},
		{"bandwidth", `"ingressRate": 8000, "ingressBurst": 8000`},
		{"portmap", `"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}`},
	} {
		say("ADD", c.plugin, c.conf, "")
	}
	say("ADD", "bridge", `"bridge": "br-w"`, "", "CNI_NETNS=/run/netns/missing")
	say("ADD", "bridge", `"bridge": "br-w"`, "", "CNI_IFNAME=a/b")
	say("ADD", "bridge", `"bridge": "br-w"`, "", "CNI_IFNAME=a-name-that-is-too-long")
	say("ADD", "bridge", `"bridge": "br-w"`, "", "CNI_CONTAINERID=..")
	return s
}

// refusals has an ADD, a CHECK and a DEL for each of refused, and documents that
// are no configuration.
func refusals() []story {
	var all []story
	for _, r := range refused {
		calls := func(verb string) step { return step{name: verb, verb: verb, plugin: r.plugin, conf: r.conf} }
		all = append(all, story{"refused " + r.plugin + " " + r.conf, []step{calls("ADD"), calls("DEL"), {name: "links", script: links}}})
	}
	documents := story{name: "documents"}
	for _, d := range []string{
		``, `{`, `[]`, `{"cniVersion": "9.9.9", "name": "n", "type": "T"}`, `{"cniVersion": "1.0", "name": "n", "type": "T"}`,
		`{"cniVersion": "1.0.0", "name": "", "type": "T"}`, `{"cniVersion": "1.0.0", "name": "a/b", "type": "T"}`, `{"name": "n", "type": "T"}`,
	} {
		for _, p := range []string{"bridge", "host-local", "portmap"} {
			for _, verb := range []string{"ADD", "DEL", "VERSION"} {
				documents.steps = append(documents.steps, step{name: verb + " " + p + " " + d, verb: verb, plugin: p, conf: "!" + d})
			}
		}
	}
	return append(all, documents)
}
