package firewall_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/firewall"
)

// town is a host with two bridges, two containers on the first and one on the
// second, and a LAN with another machine.
type town struct {
	*nltest.Bed
	a2, b1, lan *netns.NS
}

func newTown(t *testing.T) *town {
	t.Helper()
	b := nltest.New(t)
	w := &town{b, b.NewSandbox(), b.NewSandbox(), b.NewSandbox()}
	w.build()
	return w
}

func (w *town) build() {
	w.Forward()
	w.Bridge("br0", "10.1.0.1/16", "fd01::1/64")
	w.Bridge("br1", "10.2.0.1/16", "fd02::1/64")
	w.Plug(w.Sandbox, "veth0", "br0", "10.1.0.2/16", "fd01::2/64")
	w.Plug(w.a2, "veth1", "br0", "10.1.0.3/16", "fd01::3/64")
	w.Plug(w.b1, "veth2", "br1", "10.2.0.2/16", "fd02::2/64")
	w.Plug(w.lan, "lan0", "", "192.0.2.9/24", "2001:db8::9/64")
	w.Addr("lan0", "192.0.2.1/24")
	w.Addr("lan0", "2001:db8::1/64")
	for ns, gw := range map[*netns.NS][2]string{
		w.Sandbox: {"10.1.0.1", "fd01::1"}, w.a2: {"10.1.0.1", "fd01::1"}, w.b1: {"10.2.0.1", "fd02::1"}, w.lan: {"192.0.2.1", "2001:db8::1"},
	} {
		w.In(ns, func() {
			w.IP("route", "add", "default", "via", gw[0])
			w.IP("-6", "route", "add", "default", "via", gw[1])
		})
	}
}

// attach is the call for one of the town's containers.
func (w *town) attach(id, more string) nltest.Call {
	net, port, ip, path := "net0", "veth0", 2, w.Path
	bridge := 0
	switch id {
	case "a2":
		port, ip, path = "veth1", 3, w.PathOf(w.a2)
	case "b1":
		net, port, bridge, path = "net1", "veth2", 1, w.PathOf(w.b1)
	}
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"%s","type":"firewall"%s,"prevResult":{"cniVersion":"1.0.0",
	 "interfaces":[{"name":"br%d"},{"name":"%s"},{"name":"eth0","sandbox":"%s"}],
	 "ips":[{"interface":2,"address":"10.%[6]d.0.%[7]d/16","gateway":"10.%[6]d.0.1"},{"interface":2,"address":"fd0%[6]d::%[7]d/64","gateway":"fd0%[6]d::1"}]}}`,
		net, more, bridge, port, path, bridge+1, ip)
	if id != "" {
		w.attachedBy(net, id, fmt.Sprintf(`{"ipam":{"type":"host-local","ranges":[[{"subnet":"10.%[1]d.0.0/16"}],[{"subnet":"fd0%[1]d::/64"}]]}}`, bridge+1))
	}
	return nltest.Call{Table: plugin.Table{"firewall": firewall.Plugin}, Plugin: "firewall", ContainerID: id, Netns: path, Conf: conf}
}

// attachedBy writes the record that bridge has of a container, unless it has one.
func (w *town) attachedBy(network, id, conf string) {
	e, err := w.Journal().Open(context.Background(), journal.Key{Network: network, ContainerID: id, IfName: "eth0", Plugin: "bridge"})
	if err != nil {
		panic(err)
	}
	if e.Found == journal.Nothing {
		e.Config = json.RawMessage(conf)
		err = errors.Join(e.Begin(), e.Done())
	}
	if err = errors.Join(err, e.Close()); err != nil {
		panic(err)
	}
}

// rules is all that the host filters by.
func (w *town) rules() string {
	out := w.Run("nft", "list", "ruleset")
	for _, cmd := range []string{"iptables-legacy-save", "ip6tables-legacy-save"} {
		for _, line := range strings.Split(w.Run(cmd), "\n") {
			if strings.HasPrefix(line, "-") || strings.HasPrefix(line, ":") && !strings.Contains(line, " ACCEPT ") {
				out += strings.Split(line, " [")[0] + "\n"
			}
		}
	}
	return counters.ReplaceAllString(out, "counter")
}

var counters = regexp.MustCompile(`counter packets \d+ bytes \d+`)

// hosts are those that drop what nobody lets through, each its own way.
var hosts = []struct {
	name, conf string
	prepare    func(*town)
}{
	{"clean", "", func(*town) {}},
	{"iptables-nft drops", "", func(w *town) {
		w.Run("iptables", "-P", "FORWARD", "DROP")
		w.Run("ip6tables", "-P", "FORWARD", "DROP")
	}},
	{"iptables-nft drops, nftables", `,"backend":"nftables"`, func(w *town) {
		w.Run("iptables", "-P", "FORWARD", "DROP")
		w.Run("ip6tables", "-P", "FORWARD", "DROP")
	}},
	{"iptables-nft drops, iptables", `,"backend":"iptables"`, func(w *town) {
		w.Run("iptables", "-P", "FORWARD", "DROP")
		w.Run("ip6tables", "-P", "FORWARD", "DROP")
	}},
	{"legacy iptables drops", "", func(w *town) {
		w.Run("iptables-legacy", "-P", "FORWARD", "DROP")
		w.Run("ip6tables-legacy", "-P", "FORWARD", "DROP")
	}},
}

func (w *town) serve() {
	for _, ns := range []*netns.NS{w.Sandbox, w.a2, w.b1, w.lan} {
		for _, ip := range []string{"0.0.0.0:80", "[::]:80"} {
			w.Serve(ns, strings.Replace("tcp4", "4", map[bool]string{true: "4", false: "6"}[ip[0] == '0'], 1), ip)
		}
	}
}

// reach asks around: "+" for an answer.
func (w *town) reach() map[string]string {
	got := map[string]string{}
	ask := func(what string, from *netns.NS, v4, v6 string) {
		for family, addr := range map[string]string{"": v4, ", IPv6": "[" + v6 + "]"} {
			if w.Ask(from, "tcp", addr+":80") != "" {
				got[what+family] = "+"
			}
		}
	}
	ask("container to LAN", w.Sandbox, "192.0.2.9", "2001:db8::9")
	ask("container to its neighbour", w.Sandbox, "10.1.0.3", "fd01::3")
	ask("container to another bridge", w.Sandbox, "10.2.0.2", "fd02::2")
	ask("another bridge to container", w.b1, "10.1.0.2", "fd01::2")
	ask("host to container", w.Host, "10.1.0.2", "fd01::2")
	return got
}

func expect(what ...string) map[string]string {
	m := map[string]string{}
	for _, w := range what {
		m[w], m[w+", IPv6"] = "+", "+"
	}
	return m
}

// TestReach sends packets: who reaches whom under each policy, on each host.
func TestReach(t *testing.T) {
	all := expect("container to LAN", "container to its neighbour", "container to another bridge", "another bridge to container", "host to container")
	policies := []struct {
		conf string
		want map[string]string
	}{
		{``, all},
		{`,"ingressPolicy":"same-bridge"`, expect("container to LAN", "container to its neighbour", "host to container")},
		{`,"ingressPolicy":"isolated"`, expect("container to LAN", "host to container")},
	}
	for _, h := range hosts {
		for _, p := range policies {
			if h.conf != "" && p.conf != "" {
				continue // policies are the same with every backend
			}
			t.Run(h.name+p.conf, func(t *testing.T) {
				w := newTown(t)
				h.prepare(w)
				w.serve()
				before := w.rules()
				var calls []nltest.Call
				for _, id := range []string{"a1", "a2", "b1"} {
					c := w.attach(id, h.conf+p.conf)
					w.Must(plugin.Add, c)
					w.Must(plugin.Check, c)
					calls = append(calls, c)
				}
				if diff := cmp.Diff(p.want, w.reach()); diff != "" {
					t.Errorf("who reaches whom (-want +got):\n%s\n%s", diff, w.rules())
				}
				for _, c := range calls {
					w.Must(plugin.Del, c)
					w.Must(plugin.Del, c)
				}
				if diff := cmp.Diff(before, w.rules()); diff != "" {
					t.Errorf("left behind (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// TestReadable: what is made natively, iptables goes on to list.
func TestReadable(t *testing.T) {
	w := newTown(t)
	w.Must(plugin.Add, w.attach("a1", ""))
	want := `-P INPUT ACCEPT
-P FORWARD ACCEPT
-P OUTPUT ACCEPT
-N CNI-ADMIN
-N CNI-FORWARD
-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
-A CNI-FORWARD -d 10.1.0.0/16 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "net: net0, to 10.1.0.0/16" -j ACCEPT
-A CNI-FORWARD -d 10.1.0.0/16 -m conntrack --ctstate DNAT -m comment --comment "net: net0, published 10.1.0.0/16" -j ACCEPT
-A CNI-FORWARD -s 10.1.0.0/16 -m comment --comment "net: net0, from 10.1.0.0/16" -j ACCEPT
`
	got := w.Run("iptables", "-S")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("iptables -S (-want +got):\n%s", diff)
	}
	w.Run("iptables", "-A", "CNI-ADMIN", "-d", "192.0.2.9", "-j", "DROP")
	w.serve()
	if _, through := w.reach()["container to LAN"]; through {
		t.Error("CNI-ADMIN does not come first")
	}
	w.Must(plugin.Del, w.attach("a1", ""))
	if out := w.Run("iptables", "-S"); !strings.Contains(out, "-A CNI-ADMIN -d 192.0.2.9") {
		t.Errorf("the admin's rules went with the last container:\n%s", out)
	}
}

// TestSteadyState: the network's second container changes nothing.
func TestSteadyState(t *testing.T) {
	w := newTown(t)
	w.Run("iptables", "-P", "FORWARD", "DROP")
	w.Must(plugin.Add, w.attach("a1", `,"ingressPolicy":"same-bridge"`))
	c := w.attach("a2", `,"ingressPolicy":"same-bridge"`)
	c.Gate = func(what string) error { return fmt.Errorf("asked for %q", what) }
	w.Must(plugin.Add, c)
	w.Must(plugin.Del, c)
}

func TestNoTrace(t *testing.T) {
	for _, h := range hosts {
		if h.name != "clean" && !strings.HasPrefix(h.name, "legacy") {
			continue // no other changes than on a clean one
		}
		t.Run(h.name, func(t *testing.T) {
			c := nltest.Call{Table: plugin.Table{"firewall": firewall.Plugin}, Plugin: "firewall", ContainerID: "a1"}
			c.Conf = confOf(h.conf + `,"ingressPolicy":"isolated"`)
			nltest.NoTrace(t, c, func(b *nltest.Bed) {
				w := &town{b, b.NewSandbox(), b.NewSandbox(), b.NewSandbox()}
				w.build()
				h.prepare(w)
			})
		})
	}
}

func confOf(more string) string {
	return `{"cniVersion":"1.0.0","name":"net0","type":"firewall"` + more + `,"prevResult":{"cniVersion":"1.0.0",
	 "interfaces":[{"name":"br0"},{"name":"veth0"},{"name":"eth0","sandbox":"/x"}],
	 "ips":[{"interface":2,"address":"10.1.0.2/16"},{"interface":2,"address":"fd01::2/64"}]}}`
}

// TestLifecycle: refused twice, CHECK notices and reconcile restores, DEL works
// with nothing known.
func TestLifecycle(t *testing.T) {
	for _, h := range hosts {
		t.Run(h.name, func(t *testing.T) {
			w := newTown(t)
			h.prepare(w)
			before := w.rules()
			c := w.attach("a1", h.conf+`,"ingressPolicy":"isolated"`)
			w.Must(plugin.Del, c)
			w.Must(plugin.Add, c)
			made := w.rules()
			w.Fails(plugin.Add, c, 100)
			w.Run("nft", "flush", "ruleset")
			for _, cmd := range []string{"iptables-legacy", "ip6tables-legacy"} {
				if strings.HasPrefix(h.name, "legacy") {
					w.Run(cmd, "-F")
					w.Run(cmd, "-X")
				}
			}
			h.prepare(w)
			w.Fails(plugin.Check, c, 102)
			for range 2 {
				w.reconciled(t)
			}
			if diff := cmp.Diff(strings.Split(made, "\n"), strings.Split(w.rules(), "\n")); diff != "" {
				t.Errorf("reconciled (-made +now):\n%s", diff)
			}
			w.Must(plugin.Check, c)
			bare := c
			bare.Netns, bare.Conf = nltest.NoNetns, `{"cniVersion":"1.0.0","name":"net0","type":"firewall"}`
			w.Must(plugin.Del, bare)
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}
