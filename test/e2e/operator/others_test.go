package operator

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// says fails the story where no line of the level matches.
func (s story) says(name, level, pattern string) *line {
	s.t.Helper()
	for _, a := range s.explain(name) {
		i := slices.IndexFunc(a.Lines, func(l line) bool { return l.Level == level && regexp.MustCompile(pattern).MatchString(l.String()) })
		if i >= 0 {
			return &a.Lines[i]
		}
	}
	text, _ := s.sh("netcleat explain " + name)
	s.t.Fatalf("no %s matches %s\n%s", level, pattern, text)
	return nil
}

// run runs the command that a line prints.
func (s story) run(l *line) {
	s.t.Helper()
	if l.Mend == nil || l.Mend.Command == "" {
		s.t.Fatalf("no command mends %s", l)
	}
	if out, err := s.sh(l.Mend.Command); err != nil {
		s.t.Fatalf("%s: %v\n%s", l.Mend.Command, err, out)
	}
}

// An address that another has is named, and taken back once that is gone.
func TestDuplicateAddress(t *testing.T) {
	s, _ := newStory(t)
	s.Sh(`
		ip netns exec web sysctl -qw net.ipv6.conf.eth0.accept_dad=1
		ip -n web addr del fd00:90::2/64 dev eth0
		ip -n db addr add fd00:90::2/64 dev eth0 nodad
		ip -n web addr add fd00:90::2/64 dev eth0`)
	s.Wait("duplicate address detected", func() bool { return strings.Contains(s.Sh("ip -n web addr show dev eth0"), "dadfailed") })
	l := s.says("web", "problem", `^host-local: fd00:90::2/64 on eth0: another on the link has it \(dadfailed\)$`)
	s.Sh("ip -n db addr del fd00:90::2/64 dev eth0")
	s.run(l)
	s.Wait("address no longer tentative", func() bool { return !strings.Contains(s.Sh("ip -n web addr show dev eth0"), "tentative") })
	s.mend("web")
	s.works()
}

// An address that two attachments have, and a lease that is another's.
func TestSharedAddress(t *testing.T) {
	s, l := newStory(t)
	s.Sh(`printf 'db\r\neth0' >/var/lib/cni/networks/shop/10.90.0.2`)
	s.says("web", "problem", `^host-local: a lease of 10\.90\.0\.2: container db has it$`)
	s.Sh(`
		rm /var/lib/cni/networks/shop/10.90.0.2
		printf 10.90.0.1 >/var/lib/cni/networks/shop/last_reserved_ip.0`)
	s.Add(l, s.Container("third"))
	s.says("third", "problem", `^host-local: 10\.90\.0\.2 for nobody else: container web eth0 has it, too$`)
	s.says("web", "problem", `container third eth0 has it, too$`)
	s.Del(l, s.rt("third"))
	s.Sh("ip netns del third")
	s.Sh("ip -n web link set eth0 down; ip -n web link set eth0 up")
	s.mend("web") // the lease
	s.works()
}

// An interface that is gone can only be made anew; a sandbox that is gone is
// removed by the printed command.
func TestGone(t *testing.T) {
	s, l := newStory(t)
	s.Sh("ip link del br-shop")
	s.says("web", "problem", `^bridge: bridge br-shop, up: it is missing$`)
	s.mend("web")
	s.mend("db")
	s.works()

	s.Sh("ip -n db link del eth0")
	p := s.says("db", "problem", `^bridge: eth0 in the sandbox, up: it is missing$`)
	if p.Mend.Command != "" || !strings.Contains(p.Mend.When, "restart the container") {
		t.Errorf("mend %+v: want no command", p.Mend)
	}
	s.Del(l, s.rt("db")) // what a restart does
	s.Add(l, s.rt("db"))
	s.mend("db")
	s.works()

	s.Sh("ip netns del db")
	s.Wait("host end gone", func() bool { return strings.Count(s.Sh("ip -o link show type veth"), "br-shop") == 1 })
	s.run(s.says("db", "problem", `^bridge: a sandbox at /run/netns/db: it is gone$`))
	out, err := s.sh("netcleat ls shop")
	if err != nil || strings.Contains(out, " sandbox gone") {
		t.Errorf("%v\n%s", err, out)
	}
}

// What may be meant, and what only others see, are notes: the exit status is 0.
func TestNotes(t *testing.T) {
	s, l := newStory(t)
	s.Sh("ip neigh add 10.90.0.2 dev br-shop lladdr 02:00:00:00:00:01 nud permanent && ip neigh del 10.90.0.2 dev br-shop")
	web := s.rt("lonely")
	s.Run("ip", "netns", "add", "lonely")
	web.CapabilityArgs["portMappings"] = []map[string]any{{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}}
	s.Add(l, web)
	s.says("lonely", "note", `^portmap: somebody to answer on port 80/tcp in the sandbox: nobody listens there$`)
	host := s.Cmd(append([]string{"sh", "-c", "exec \"$@\"", "sh"}, s.peer("serve", "8081")...)...)
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	s.Wait("a listener", func() bool { return strings.Contains(s.Sh("ss -ltn"), ":8081") })
	s.says("lonely", "note", `^portmap: port \*:8081/tcp of the host free: peer \(process \d+\) listens there: `)

	s.Sh(`
		ip link add up1 type veth peer name up2
		ip addr add 203.0.113.1/24 dev up1
		ip link set up1 up
		ip link set up2 up
		ip route add default via 192.0.2.2
		ip route add default via 203.0.113.2 metric 7
		sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.up1.rp_filter=1 net.ipv4.conf.lan0.rp_filter=0`)
	n := s.says("web", "note", `^bridge: answers over any of the uplinks \[lan0 up1\]: rp_filter is strict on up1`)
	s.run(n)
	if v := strings.TrimSpace(s.Sh("cat /proc/sys/net/ipv4/conf/up1/rp_filter")); v != "2" {
		t.Errorf("rp_filter is %s after %s", v, n.Mend.Command)
	}
	// The container's interface goes down while the host asks for it.
	s.Sh("ip -n web link set eth0 arp off; ip neigh flush dev br-shop; ping -c1 -W1 10.90.0.2 || true")
	s.Wait("the neighbour has failed", func() bool { return strings.Contains(s.Sh("ip neigh show 10.90.0.2 dev br-shop"), "FAILED") })
	n = s.says("web", "note", `^bridge: 10\.90\.0\.2 as a neighbour of the host: it did not answer`)
	s.Sh("ip -n web link set eth0 arp on")
	s.run(n)
	s.works()
}

// The kernel's old iptables drop, too.
func TestOldTables(t *testing.T) {
	s, _ := newStory(t)
	if out, err := s.Try("iptables-legacy", "-P", "FORWARD", "DROP"); err != nil {
		t.Skipf("the kernel has no old iptables: %s", out)
	}
	l := s.says("web", "problem", `^firewall: the firewall lets 10\.90\.0\.0/24 through: iptables-legacy filter FORWARD drops it: policy drop$`)
	s.run(l)
	s.mend("web")
	s.works()
}

const second = `{
  "cniVersion": "1.1.0", "name": "store",
  "plugins": [
    {"type": "bridge", "bridge": "br-store", "isDefaultGateway": true, "ipMasq": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.91.0.0/24"}]]}},
    {"type": "sbr"}
  ]
}`

// A second interface with routing by source address.
func TestSecondInterface(t *testing.T) {
	s, _ := newStory(t)
	rt := s.rt("web")
	rt.IfName = "eth1"
	s.Add(s.List(second), rt)
	s.mend("web")
	for _, breaks := range []string{"ip -n web rule del from 10.91.0.2", "ip -n web route flush table 100"} {
		s.Sh(breaks)
		s.run(s.says("web", "problem", `^sbr: its rules and routes in the sandbox: they are missing`))
		s.mend("web")
		s.Run("ip", "netns", "exec", "web", "ping", "-c1", "-W5", "-I", "10.91.0.2", "192.0.2.2")
	}
	s.Sh("ip netns exec web sysctl -qw net.ipv4.conf.all.rp_filter=1")
	n := s.says("web", "note", `^bridge: answers over any of the sandbox's interfaces: rp_filter is strict`)
	s.run(n)
	s.works()
}

// A link on a parent: what breaks it is the parent.
func TestParent(t *testing.T) {
	s := story{bed.New(t), t}
	l := s.List(`{"cniVersion": "1.0.0", "name": "lan", "disableCheck": true, "plugins": [{"type": "macvlan", "master": "lan0",
		"ipam": {"type": "static", "addresses": [{"address": "192.0.2.9/24"}]}}]}`)
	s.Add(l, s.Container("mac"))
	s.mend("mac")
	s.says("mac", "note", `^macvlan: a CHECK by the plugins themselves: the list has disableCheck`)
	s.Sh("ip link set lan0 down")
	s.says("mac", "problem", `^macvlan: its parent lan0, up: it is down$`)
	s.mend("mac")
	s.Run("ip", "netns", "exec", "mac", "ping", "-c1", "-W5", "192.0.2.2")
	s.Sh("ip -n mac addr flush dev eth0")
	s.says("mac", "problem", `^static: 192\.0\.2\.9/24 on eth0: it is missing$`)
	s.mend("mac")
	s.Run("ip", "netns", "exec", "mac", "ping", "-c1", "-W5", "192.0.2.2")
}

// What the reference attached is explained by libcni's memory.
func TestReference(t *testing.T) {
	s := story{bed.New(t, "iptables"), t}
	s.InstallReference()
	l := s.List(strings.NewReplacer(`{"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "txQLen": 500},`, "").Replace(list))
	web := s.Container("web")
	web.CapabilityArgs["portMappings"] = []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}
	s.Add(l, web)
	s.Add(l, s.Container("db"))
	s.Serve("web", "80")
	s.mend("web")
	s.works()
	for _, c := range []struct{ breaks, says string }{
		{"ip -n web addr del 10.90.0.2/24 dev eth0", `10\.90\.0\.2/24 on eth0: it is missing$`},
		{"ip addr del 10.90.0.1/24 dev br-shop", `gateway 10\.90\.0\.1/24 on br-shop: it is missing$`},
		{"iptables -t nat -F POSTROUTING", `^bridge: masquerading of 10\.90\.0\.0/24: no rule does it`},
		{"iptables -P FORWARD DROP; iptables -F CNI-FORWARD", `ip filter FORWARD drops it: policy drop$`},
		{"sysctl -qw net.ipv4.ip_forward=0", `forwarding of IPv4: it is off$`},
	} {
		s.Sh(c.breaks)
		s.says("web", "problem", c.says)
		s.mend("web")
		s.works()
	}
	s.Sh("for tool in iptables ip6tables; do $tool -t nat -F; $tool -t nat -X; done")
	p := s.says("web", "problem", `^portmap: published \*:8080->80/tcp: no rule speaks of the container$`)
	if !strings.Contains(p.Mend.When, "restart the container") {
		t.Errorf("mend %+v", p.Mend)
	}
}

// A container goes by several names.
func TestNames(t *testing.T) {
	s, l := newStory(t)
	pod := s.Container("webshop")
	pod.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", "cart"}}
	s.Add(l, pod)
	for name, want := range map[string]string{
		"web": "shop web eth0 in /run/netns/web", "webs": "shop shop/cart eth0 in /run/netns/webshop", "shop/cart": "shop shop/cart eth0",
		"/run/netns/web": "shop web eth0", "shop-web-eth0": "shop web eth0", "d": "shop db eth0",
		"we": `container "we": matches 2: web, webshop`, "nobody": `container "nobody": not known, neither from netcleat's records nor from libcni's cache`,
	} {
		out, _ := s.sh("netcleat explain " + name)
		if !strings.Contains(out, want) {
			t.Errorf("explain %s: want %q\n%s", name, want, out)
		}
	}
	// A look changes nothing.
	counts := regexp.MustCompile(`packets \d+ bytes \d+`)
	state := func() []string { return strings.Split(counts.ReplaceAllString(s.State(), ""), "\n") }
	before := state()
	s.mend("web")
	s.mend("shop/cart")
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("explain has changed the host: %s", diff)
	}
}

// The container may name its links as it likes: what is printed to mend that is
// one command all the same, and nothing that a terminal obeys.
func TestNamesFromTheSandbox(t *testing.T) {
	s, _ := newStory(t)
	s.Run("ip", "-n", "web", "link", "set", "eth0", "down")
	s.Run("ip", "-n", "web", "link", "set", "eth0", "name", "x;touch${IFS}p")
	s.Run("ip", "-n", "web", "link", "set", "x;touch${IFS}p", "up")
	s.mend("web")
	s.works()
	if out, err := s.Try("ls", "p"); err == nil {
		t.Errorf("the name was run as a command: %s", out)
	}
	s.Run("ip", "-n", "web", "link", "set", "x;touch${IFS}p", "down")
	s.run(s.says("web", "warning", `^bridge: eth0 in the sandbox: it is called x;touch\$\{IFS\}p$`))
	if out, err := s.Try("ls", "p"); err == nil {
		t.Errorf("the name was run as a command: %s", out)
	}
	s.Run("ip", "-n", "web", "link", "set", "eth0", "name", "a\x1b[2J")
	if out, _ := s.sh("netcleat explain web"); strings.Contains(out, "\x1b") || !strings.Contains(out, "it is called a?[2J") {
		t.Errorf("%q", out)
	}
}

// Interfaces of other kinds, in order, have nothing wrong with them.
func TestOtherKinds(t *testing.T) {
	s := story{bed.New(t), t}
	for i, conf := range []string{
		`{"type": "ptp", "ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.95.0.0/24"}], [{"subnet": "fd00:95::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}`,
		`{"type": "bridge", "bridge": "br-l2"}`,
		`{"type": "macvlan", "master": "lan0", "ipam": {"type": "static", "addresses": [{"address": "192.0.2.9/24"}, {"address": "2001:db8::9/64"}]}}`,
		`{"type": "tap"}`,
	} {
		name := "other" + string(rune('a'+i))
		rt := s.Container(name)
		s.Add(s.List(`{"cniVersion": "1.0.0", "name": "`+name+`", "plugins": [`+conf+`]}`), rt)
		s.mend(name)
	}
	s.Sh("ip -n othera route flush dev eth0; ip netns exec othera sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1")
	s.mend("othera")
	s.Run("ip", "netns", "exec", "othera", "ping", "-c1", "-W5", "192.0.2.2")
	s.Run("ip", "netns", "exec", "othera", "ping", "-c1", "-W5", "2001:db8::2")
	// Elsewhere than on its host nothing is said of it.
	if out, err := s.sh("ip netns exec lan netcleat explain othera"); err != nil || !strings.Contains(out, "netcleat explain has to run there") {
		t.Errorf("%v\n%s", err, out)
	}
}
