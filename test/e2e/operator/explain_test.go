// Package operator breaks what the plugins have made, in each way that netcleat
// explain and netcleat doctor know, and mends it with the commands that they
// print, until packets pass.
package operator

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// story is a host with containers on a network.
type story struct {
	*bed.Host
	t testing.TB
}

const list = `{
  "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "shop",
  "plugins": [
    {"type": "bridge", "bridge": "br-shop", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.90.0.0/24"}], [{"subnet": "fd00:90::/64"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "firewall"},
    {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "txQLen": 500},
    {"type": "bandwidth", "ingressRate": 80000000, "ingressBurst": 8000000, "egressRate": 80000000, "egressBurst": 8000000}
  ]
}`

// newStory makes a host with container web, which has published port 8080, and
// container db.
func newStory(t *testing.T) (s story, l *libcni.NetworkConfigList) {
	t.Helper()
	s = story{bed.New(t, "iptables", "nft", "tc", "bridge"), t}
	l = s.List(list)
	web := s.Container("web")
	web.CapabilityArgs["portMappings"] = []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}
	s.Add(l, web)
	s.Add(l, s.Container("db"))
	s.Serve("web", "80")
	return s, l
}

// sh runs what an operator types on the host.
func (s story) sh(script string) (string, error) {
	path := "export PATH=" + filepath.Dir(s.Netcleat()) + ":$PATH CNI_PATH=" + s.Plugins + "\n"
	return s.Try("sh", "-c", path+script)
}

// report is what is read of netcleat explain's JSON.
type report []struct {
	First *line  `json:"first"`
	Lines []line `json:"lines"`
}

type line struct {
	Level, Plugin, Want, Have string
	Mend                      *struct{ Command, When string }
}

func (l line) String() string { return l.Plugin + ": " + l.Want + ": " + l.Have }

// explain asks netcleat, whose exit status must fit what it says.
func (s story) explain(name string) report {
	s.t.Helper()
	out, err := s.sh("netcleat explain -o json " + name + " 2>/dev/null")
	var r report
	if jerr := json.Unmarshal([]byte(out), &r); jerr != nil {
		text, _ := s.sh("netcleat explain " + name)
		s.t.Fatalf("explain: %v\n%s\n%s", jerr, out, text)
	}
	broken := r.first() != nil
	if broken != (err != nil) {
		s.t.Errorf("explain: exit status %v, and a problem: %v", err, broken)
	}
	return r
}

// first returns the first thing that breaks the container, or nil.
func (r report) first() *line {
	for _, a := range r {
		if a.First != nil {
			return a.First
		}
	}
	return nil
}

// mend runs the command that is printed for the first thing that breaks the
// container until there is none.
func (s story) mend(name string) {
	s.t.Helper()
	const rounds = 8
	for range rounds {
		l := s.explain(name).first()
		if l == nil {
			return
		}
		if l.Mend == nil || l.Mend.Command == "" {
			s.t.Fatalf("no command mends %s", l)
		}
		s.t.Logf("%s\n-> %s", l, l.Mend.Command)
		if out, err := s.sh(l.Mend.Command); err != nil {
			s.t.Fatalf("%s: %v\n%s", l.Mend.Command, err, out)
		}
	}
	text, _ := s.sh("netcleat explain " + name)
	s.t.Fatalf("not mended in %d rounds\n%s", rounds, text)
}

// seen checks that people who do not ask for the container see that something is wrong with
// it: netcleat ls does not call it ok, and netcleat doctor has a finding of the level.
func (s story) seen(name, level string) {
	s.t.Helper()
	if health := s.health(name); health == "ok" {
		s.t.Error("netcleat ls says ok")
	}
	out, ok := s.doctor()
	if ok == (level == "problem") || !regexp.MustCompile(`(?m)^`+level+" ").MatchString(out) {
		s.t.Errorf("netcleat doctor has no %s, or its exit status does not say so\n%s", level, out)
	}
}

// health is what netcleat ls says of the container's attachment.
func (s story) health(name string) string {
	s.t.Helper()
	out, err := s.sh("netcleat ls --format '{{.Container}} {{.Health}}'")
	if err != nil {
		s.t.Errorf("netcleat ls: %v\n%s", err, out)
	}
	for l := range strings.Lines(out) {
		if container, health, _ := strings.Cut(strings.TrimSpace(l), " "); container == name {
			return health
		}
	}
	s.t.Fatalf("netcleat ls does not list %s\n%s", name, out)
	return ""
}

// works checks that web reaches the world in both families, and the world web.
func (s story) works() {
	s.t.Helper()
	s.Run("ip", "netns", "exec", "web", "ping", "-c1", "-W5", "192.0.2.2")
	s.Run("ip", "netns", "exec", "web", "ping", "-c1", "-W5", "2001:db8::2")
	s.Run("ip", "netns", "exec", "db", "ping", "-c1", "-W5", "10.90.0.2")
	s.Wants("web saw 192.0.2.2", s.LAN().TCP("192.0.2.1:8080"))
}

// causes are ways to break web's network, and how each is named.
var causes = []struct{ name, breaks, says string }{
	{"interface down", "ip -n web link set eth0 down", `^bridge: eth0 in the sandbox, up: it is down$`},
	{"host end down", "ip link set $HOST down", `^bridge: its end on the host, veth\w+, up: it is down$`},
	{"host end off its bridge", "ip link set $HOST nomaster", `^bridge: veth\w+ as a port of br-shop: it is no port of any$`},
	{"host end on another bridge", "ip link add br-x type bridge && ip link set $HOST master br-x", `it is a port of br-x$`},
	{"hairpin off", "bridge link set dev $HOST hairpin off", `its hairpin mode is off$`},
	{"bridge down", "ip link set br-shop down", `^bridge: bridge br-shop, up: it is down$`},
	{"address missing", "ip -n web addr del 10.90.0.2/24 dev eth0", `^host-local: 10\.90\.0\.2/24 on eth0: it is missing$`},
	{"IPv6 address missing", "ip -n web addr del fd00:90::2/64 dev eth0", `^host-local: fd00:90::2/64 on eth0: it is missing$`},
	{"IPv6 off", "ip netns exec web sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1", `^bridge: IPv6 on eth0: disable_ipv6 is 1$`},
	{"default route missing", "ip -n web route del default", `^bridge: route default via 10\.90\.0\.1 in the sandbox: it is missing$`},
	{"IPv6 default route missing", "ip -n web -6 route del default", `route default via fd00:90::1 in the sandbox: it is missing$`},
	{"route to the subnet missing", "ip -n web route flush dev eth0", `route 10\.90\.0\.0/24 in the sandbox: it is missing$`},
	{"default route elsewhere", "ip -n web link add d0 type veth peer name d1 && ip -n web link set d0 up && ip -n web route replace default dev d0", `it is missing: there is 0\.0\.0\.0/0`},
	{"gateway missing", "ip addr del 10.90.0.1/24 dev br-shop", `^bridge: gateway 10\.90\.0\.1/24 on br-shop: it is missing$`},
	{"IPv6 gateway missing", "ip addr del fd00:90::1/64 dev br-shop", `gateway fd00:90::1/64 on br-shop: it is missing$`},
	{"IPv6 off on the bridge", "sysctl -qw net.ipv6.conf.br-shop.disable_ipv6=1", `it is missing, and IPv6 is off there$`},
	{"host's route elsewhere", "ip link add d0 type veth peer name d1 && ip link set d0 up && ip route add 10.90.0.2/32 dev d0", `the host's route to 10\.90\.0\.2 over br-shop: it leads to d0$`},
	{"forwarding off", "sysctl -qw net.ipv4.ip_forward=0", `^bridge: forwarding of IPv4: it is off$`},
	{"IPv6 forwarding off", "sysctl -qw net.ipv6.conf.all.forwarding=0", `^bridge: forwarding of IPv6: it is off$`},
	{"FORWARD drops", "iptables -P FORWARD DROP && iptables -F CNI-FORWARD", `^firewall: .* lets 10\.90\.0\.0/24 through: ip filter FORWARD drops it: policy drop$`},
	{"an nftables chain drops", "nft add table inet site && nft 'add chain inet site f { type filter hook forward priority 5; policy drop; }'", `inet site f drops it: policy drop$`},
	{"an nftables rule drops", "nft add table ip site && nft 'add chain ip site f { type filter hook forward priority 5; }' && nft add rule ip site f ip saddr 10.90.0.0/16 reject", `ip site f drops it: ip saddr 10\.90\.0\.0/16 reject$`},
	{"a set's element drops", "nft add table ip site && nft 'add set ip site s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }' && nft 'add chain ip site f { type filter hook forward priority 5; }' && nft add rule ip site f ip saddr @s drop", `ip site f drops it: ip saddr @s drop$`},
	{"masquerading gone", "nft delete table inet cni_plugins_masquerade", `^bridge: masquerading of 10\.90\.0\.0/24: no rule does it`},
	{"published port gone", "nft flush map ip cni_hostport ports_any", `^portmap: port \*:8080/tcp to the container's 80: it is missing in the firewall`},
	{"published ports' table gone", "nft delete table ip cni_hostport", `^portmap: port \*:8080/tcp .* it is missing`},
	{"port taken by another container", "nft flush map ip cni_hostport ports_any && nft 'add element ip cni_hostport ports_any { tcp . 8080 comment \"thief eth0 shop\" : 10.90.0.3 . 80 }'", `^portmap: port \*:8080/tcp .*: container thief has it$`},
	{"all rules gone", "nft flush ruleset", `^bridge: masquerading`},
	{"forwarding off on the bridge", "sysctl -qw net.ipv4.conf.br-shop.forwarding=0", `^bridge: forwarding of IPv4 from br-shop: it is off$`},
	{"forwarding off on the uplink", "sysctl -qw net.ipv4.conf.lan0.forwarding=0", `^bridge: forwarding of IPv4 from lan0: it is off$`},
	{"a chain before routing drops", "nft add table ip site && nft 'add chain ip site f { type filter hook prerouting priority -300; }' && nft add rule ip site f iifname br-shop drop", `ip site f drops it: iifname "br-shop" drop$`},
	{"iptables drops before routing", "iptables -t raw -A PREROUTING -s 10.90.0.0/24 -j DROP", `ip raw PREROUTING drops it`},
	{"a chain after routing drops", "nft add table inet site && nft 'add chain inet site f { type filter hook postrouting priority -150; }' && nft add rule inet site f ip saddr 10.90.0.2 drop", `inet site f drops it`},
	{"blackhole in the sandbox", "ip -n web route add blackhole 192.0.2.0/24", `^bridge: no route in the sandbox that discards packets: there is blackhole 192\.0\.2\.0/24$`},
	{"IPv6 blackhole in the sandbox", "ip -n web -6 route add prohibit 2001:db8::/32", `there is prohibit 2001:db8::/32$`},
	{"rule in the sandbox", "ip -n web rule add from 10.90.0.0/24 table 99 && ip -n web route add blackhole default table 99", `default route for what comes from 10\.90\.0\.2: rule \d+, from 10\.90\.0\.0/24 lookup 99, comes before it and leads nowhere$`},
	{"IPv6 rule in the sandbox", "ip -n web -6 rule add from fd00:90::/64 table 99 && ip -n web -6 route add unreachable default table 99", `default route for what comes from fd00:90::2: rule \d+, from fd00:90::/64 lookup 99`},
	{"rule to the containers on the host", "ip rule add pref 100 to 10.90.0.0/24 table 98 && ip route add blackhole default table 98", `the host's route to 10\.90\.0\.2 over br-shop: there is none: rule 100, from all to 10\.90\.0\.0/24 lookup 98, comes before the main table$`},
	{"rule from the containers on the host", "ip rule add pref 101 from 10.90.0.0/24 iif br-shop table 97 && ip route add blackhole default table 97", `the host's route for what comes from 10\.90\.0\.2: rule 101`},
	{"neighbour wrong in the sandbox", "ip -n web neigh replace 10.90.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent", `gateway 10\.90\.0\.1 as a neighbour: the sandbox takes it to be at 02:00:00:00:00:99`},
	{"neighbour wrong on the host", "ip neigh replace 10.90.0.2 lladdr 02:00:00:00:00:99 dev br-shop nud permanent", `10\.90\.0\.2 as a neighbour of the host: .* 02:00:00:00:00:99`},
	{"bridge has learnt another port", "bridge fdb replace $MAC dev $OTHER master static sticky", `frames to \S+ over veth\w+: br-shop sends them to veth\w+$`},
	{"lease gone", "rm /var/lib/cni/networks/shop/10.90.0.2", `^host-local: a lease of 10\.90\.0\.2: there is none`},
	{"sysctl changed", "ip netns exec web sysctl -qw net.core.somaxconn=100", `^tuning: net\.core\.somaxconn = 500: it is 100$`},
	{"queue changed", "ip -n web link set eth0 txqueuelen 7", `^tuning: txQLen 500 on eth0: it is not$`},
	{"limit gone", "tc qdisc del dev $HOST root", `^bandwidth: its limits: they are missing`},
	{"limit's device gone", "for i in $(ip -o link show type ifb | cut -d: -f2); do ip link del $i; done", `^bandwidth: its limits: they are missing`},
	// It keeps its new name, and is the last therefore.
	{"interface renamed, which takes its routes", "ip -n web link set eth0 down && ip -n web link set eth0 name eth7 && ip -n web link set eth7 up", `^bridge: route default via 10\.90\.0\.1 in the sandbox: it is missing$`},
}

// doubts are changes that not all traffic, or none, suffers from.
var doubts = []struct{ name, makes, says string }{
	{"MTU of one end", "ip -n web link set eth0 mtu 9000", `^bridge: one MTU at both ends: eth0 has 9000 and veth\w+ has 1500`},
	{"MTU of the bridge", "ip link set br-shop mtu 1280", `an MTU up to the 1280 of br-shop: eth0 has 1500: larger packets are lost$`},
	{"interface renamed", `ip -n web link set eth0 down && ip -n web link set eth0 name eth7 && ip -n web link set eth7 up &&
		ip -n web route replace default via 10.90.0.1 && ip -n web addr replace fd00:90::2/64 dev eth7 nodad && ip -n web -6 route replace default via fd00:90::1`, `^bridge: eth0 in the sandbox: it is called eth7$`},
	{"interface renamed, and its name given to another", `ip -n web link set eth0 down && ip -n web link set eth0 name eth7 && ip -n web link set eth7 up && ip -n web link property add dev lo altname eth0 &&
		ip -n web route replace default via 10.90.0.1 && ip -n web addr replace fd00:90::2/64 dev eth7 nodad && ip -n web -6 route replace default via fd00:90::1`, `^bridge: eth0 in the sandbox: it is called eth7$`},
}

// Each is named with one command that repairs it, and the container is said to
// work.
func TestDoubts(t *testing.T) {
	s, _ := newStory(t)
	for _, d := range doubts {
		t.Run(d.name, func(t *testing.T) {
			s := story{s.Host, t}
			s.Sh(d.makes)
			s.works()
			r := s.explain("web")
			text, _ := s.sh("netcleat explain web")
			if l := r.first(); l != nil {
				t.Fatalf("it works, and is said not to: %s\n%s", l, text)
			}
			var warnings []line
			for _, l := range r[0].Lines {
				if l.Level == "warning" {
					warnings = append(warnings, l)
				}
			}
			s.seen("web", "warning")
			if len(warnings) != 1 || !regexp.MustCompile(d.says).MatchString(warnings[0].String()) {
				t.Fatalf("want the one warning %s\n%s", d.says, text)
			}
			if strings.HasPrefix(d.name, "interface renamed") {
				s.Sh("ip -n web link set eth7 down && " + warnings[0].Mend.Command)
				return
			}
			s.Sh(warnings[0].Mend.Command)
			if text, _ := s.sh("netcleat explain web"); strings.Contains(text, "warning") {
				t.Errorf("after %s\n%s", warnings[0].Mend.Command, text)
			}
		})
	}
}

// A rule of another that takes the published port first is named; only who made it
// can undo it.
func TestPortTakenByAnotherRule(t *testing.T) {
	s, _ := newStory(t)
	for _, rule := range []string{
		"nft add rule ip o p tcp dport 8080 dnat to 192.0.2.55:80",
		"nft add rule ip o p fib daddr type local tcp dport { 8000-8100 } redirect to :22",
	} {
		s.Sh("nft 'add table ip o; add chain ip o p { type nat hook prerouting priority -110; }' && " + rule)
		if l := s.explain("web").first(); l == nil || !strings.Contains(l.Have, "ip o p sends what comes over lan0 elsewhere before: ") {
			t.Errorf("%s: %v", rule, l)
		}
		s.seen("web", "problem")
		s.Sh("nft delete table ip o")
	}
	s.Sh("nft 'add table ip o; add chain ip o p { type nat hook prerouting priority -110; }; add rule ip o p tcp dport 8081 dnat to 192.0.2.55:80; add rule ip o p udp dport 8080 dnat to 192.0.2.55:80; add rule ip o p ip daddr 192.0.2.77 tcp dport 8080 dnat to 192.0.2.55:80'")
	if l := s.explain("web").first(); l != nil {
		t.Errorf("rules for other ports: %s", l)
	}
	s.works()
}

// Each cause is named first, netcleat ls and doctor show that something is wrong, and the
// printed commands repair it.
func TestCauses(t *testing.T) {
	s, _ := newStory(t)
	s.Sh("ip route add default via 192.0.2.2 && ip -6 route add default via 2001:db8::2")
	if out, ok := s.doctor(); !ok || strings.Contains(out, "warning") || s.health("web") != "ok" {
		t.Fatalf("doctor or ls finds something from the beginning\n%s", out)
	}
	if l := s.explain("web").first(); l != nil {
		t.Fatalf("broken from the beginning: %s\n%s", l, s.Sh("ip -6 route; ip -6 route get fd00:90::2; ip a s dev br-shop"))
	}
	host := strings.Fields(s.Sh(`ip -n web -o link show eth0 | sed 's/.*@if\([0-9]*\):.*/\1/' | while read i; do ip -o link | sed -n "s/^$i: \([^@]*\)@.*/\1/p"; done`))[0]
	other := strings.Fields(s.Sh(`ip -n db -o link show eth0 | sed 's/.*@if\([0-9]*\):.*/\1/' | while read i; do ip -o link | sed -n "s/^$i: \([^@]*\)@.*/\1/p"; done`))[0]
	mac := strings.TrimSpace(s.Sh(`ip -n web -o link show eth0 | sed 's/.*ether \([^ ]*\).*/\1/'`))
	for _, c := range causes {
		t.Run(c.name, func(t *testing.T) {
			s := story{s.Host, t}
			if out, err := s.sh("HOST=" + host + " OTHER=" + other + " MAC=" + mac + "\n" + c.breaks); err != nil {
				t.Fatalf("%s: %v\n%s", c.breaks, err, out)
			}
			r := s.explain("web")
			l := r.first()
			if l == nil || !regexp.MustCompile(c.says).MatchString(l.String()) {
				text, _ := s.sh("netcleat explain web")
				t.Errorf("want %s\n%s", c.says, text)
			}
			s.seen("web", "problem")
			s.mend("web")
			s.works()
			if health := s.health("web"); health != "ok" && (!strings.HasPrefix(c.name, "interface renamed") || health != "no eth0") {
				t.Errorf("netcleat ls still says %s", health)
			}
			if _, err := s.sh("for i in br-x d0; do ip link del $i; done 2>/dev/null; ip -n web link del d0 2>/dev/null; nft delete table inet site; nft delete table ip site"); err != nil {
				return // what was not there
			}
		})
	}
	if out, ok := s.doctor(); !ok {
		t.Errorf("doctor finds a problem at the end\n%s", out)
	}
}

// rt is what a runtime says of eth0 of a container.
func (s story) rt(name string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: name, NetNS: "/run/netns/" + name, IfName: "eth0", CapabilityArgs: map[string]any{}}
}

// peer is the program that serves.
func (s story) peer(args ...string) []string {
	return append([]string{filepath.Join(filepath.Dir(s.Netcleat()), "peer")}, args...)
}
