package portmap_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/portmap"
)

// town is a host with a bridge, a container and its neighbour on it, and a LAN
// with another machine.
type town struct {
	*nltest.Bed
	neighbour, lan *netns.NS
}

func newTown(t *testing.T) *town {
	t.Helper()
	w := &town{Bed: nltest.New(t)}
	w.neighbour, w.lan = w.NewSandbox(), w.NewSandbox()
	w.build()
	return w
}

func (w *town) build() {
	w.Forward()
	w.Bridge("br0", "10.1.0.1/16", "fd01::1/64")
	w.Plug(w.Sandbox, "veth0", "br0", "10.1.0.2/16", "fd01::2/64")
	w.Plug(w.neighbour, "veth1", "br0", "10.1.0.3/16", "fd01::3/64")
	w.Plug(w.lan, "lan0", "", "192.0.2.9/24", "2001:db8::9/64")
	w.Addr("lan0", "192.0.2.1/24")
	w.Addr("lan0", "2001:db8::1/64")
	for _, ns := range []*netns.NS{w.Sandbox, w.neighbour} {
		w.In(ns, func() {
			w.IP("route", "add", "default", "via", "10.1.0.1")
			w.IP("-6", "route", "add", "default", "via", "fd01::1")
		})
	}
}

const prevResult = `{"cniVersion":"1.0.0",
 "interfaces":[{"name":"br0"},{"name":"veth0"},{"name":"eth0","sandbox":"/proc/1/ns/net"}],
 "ips":[{"interface":2,"address":"10.1.0.2/16","gateway":"10.1.0.1"},{"interface":2,"address":"fd01::2/64"}]}`

func conf(backend, mappings string, more ...string) string {
	c := `{"cniVersion":"1.0.0","name":"net1","type":"portmap","runtimeConfig":{"portMappings":` + mappings + `},"prevResult":` + prevResult
	if backend != "" {
		c += `,"backend":"` + backend + `"`
	}
	return c + strings.Join(more, "") + "}"
}

func call(conf string) nltest.Call {
	return nltest.Call{Table: plugin.Table{"portmap": portmap.Plugin}, Plugin: "portmap", Conf: conf}
}

// backends are the ways that rules are made; prepare brings the host into the
// state that leads to them.
var backends = []struct {
	name, conf string
	prepare    func(*town)
}{
	{"default", "", func(*town) {}},
	{"nftables", "nftables", func(*town) {}},
	{"iptables", "iptables", func(*town) {}},
	{"legacy", "", func(w *town) {
		w.Run("iptables-legacy", "-t", "nat", "-L", "-n")
		w.Run("ip6tables-legacy", "-t", "nat", "-L", "-n")
	}},
}

// rules is all that the host filters and translates by.
func (w *town) rules() string {
	out := w.Run("nft", "list", "ruleset")
	for strings.Contains(out, " expires ") { // what DEL leaves for a few milliseconds
		out = w.Run("nft", "list", "ruleset")
	}
	for _, cmd := range []string{"iptables-legacy-save", "ip6tables-legacy-save"} {
		for _, line := range strings.Split(w.Run(cmd), "\n") {
			if strings.HasPrefix(line, "-") || strings.HasPrefix(line, ":") && !strings.Contains(line, " ACCEPT ") {
				out += line + "\n"
			}
		}
	}
	return counters.ReplaceAllString(out, "counter")
}

var counters = regexp.MustCompile(`counter packets \d+ bytes \d+`)

const mappings = `[
 {"hostPort":8080,"containerPort":80,"protocol":"tcp"},
 {"HostPort":5353,"ContainerPort":53,"Protocol":"UDP","HostIP":""},
 {"hostPort":8081,"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"},
 {"hostPort":8082,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.1"},
 {"hostPort":8083,"containerPort":80,"protocol":"tcp","hostIP":"2001:db8::1"},
 {"hostPort":8084,"containerPort":80,"protocol":"tcp","hostIP":"0.0.0.0"}]`

// TestReach sends packets: who reaches what, before, during and after.
func TestReach(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			w := newTown(t)
			b.prepare(w)
			w.serve()
			before := w.rules()
			w.Must(plugin.Add, call(conf(b.conf, mappings)))
			w.Must(plugin.Check, call(conf(b.conf, mappings)))
			if diff := cmp.Diff(reached, w.reach()); diff != "" {
				t.Errorf("who reaches what, and is seen as whom (-want +got):\n%s", diff)
				t.Log(w.rules())
			}
			w.Must(plugin.Del, call(conf(b.conf, mappings)))
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
			if answer := w.Ask(w.lan, "tcp", "192.0.2.1:8080"); answer != "" {
				t.Errorf("published after DEL, too: seen as %s", answer)
			}
		})
	}
}

func (w *town) serve() {
	for _, ip := range []string{"10.1.0.2", "[fd01::2]"} {
		w.Serve(w.Sandbox, "tcp", ip+":80")
		w.Serve(w.Sandbox, "udp", ip+":53")
	}
}

var reached = map[string]string{
	"LAN, published":                          "192.0.2.9",
	"LAN, published, IPv6":                    "2001:db8::9",
	"LAN, published UDP":                      "192.0.2.9",
	"LAN, published UDP, IPv6":                "2001:db8::9",
	"LAN, published at another address":       "",
	"LAN, published at this address":          "192.0.2.9",
	"LAN, published at this address, IPv6":    "2001:db8::9",
	"LAN, published at all of IPv4":           "192.0.2.9",
	"LAN, published at all of IPv4, IPv6":     "",
	"LAN, published on loopback":              "",
	"LAN, unpublished":                        "",
	"LAN, not this host":                      "",
	"host, loopback":                          "10.1.0.1",
	"host, published on loopback":             "10.1.0.1",
	"host, own address":                       "192.0.2.1",
	"neighbour, host's address":               "10.1.0.1",
	"neighbour, host's address, IPv6":         "fd01::1",
	"neighbour, unpublished on the container": "10.1.0.3",
	"neighbour, host's loopback":              "",
	"itself, host's address":                  "10.1.0.1",
	"itself, host's address, IPv6":            "fd01::1",
}

func (w *town) reach() map[string]string {
	got := map[string]string{}
	ask := func(what string, from *netns.NS, network, addr string) { got[what] = w.Ask(from, network, addr) }
	ask("LAN, published", w.lan, "tcp", "192.0.2.1:8080")
	ask("LAN, published, IPv6", w.lan, "tcp", "[2001:db8::1]:8080")
	ask("LAN, published UDP", w.lan, "udp", "192.0.2.1:5353")
	ask("LAN, published UDP, IPv6", w.lan, "udp", "[2001:db8::1]:5353")
	ask("LAN, published at another address", w.lan, "tcp", "192.0.2.1:8081")
	ask("LAN, published at this address", w.lan, "tcp", "192.0.2.1:8082")
	ask("LAN, published at this address, IPv6", w.lan, "tcp", "[2001:db8::1]:8083")
	ask("LAN, published at all of IPv4", w.lan, "tcp", "192.0.2.1:8084")
	ask("LAN, published at all of IPv4, IPv6", w.lan, "tcp", "[2001:db8::1]:8084")
	ask("LAN, unpublished", w.lan, "tcp", "192.0.2.1:80")
	w.In(w.lan, func() {
		w.IP("route", "replace", "198.51.100.7", "via", "192.0.2.1")
		w.IP("route", "replace", "table", "local", "unicast", "127.0.0.1", "via", "192.0.2.1", "src", "192.0.2.9", "dev", "eth0")
		w.Try("ip", "route", "del", "table", "local", "local", "127.0.0.0/8", "dev", "lo")
		w.Try("ip", "route", "del", "table", "local", "local", "127.0.0.1", "dev", "lo")
	})
	ask("LAN, published on loopback", w.lan, "tcp", "127.0.0.1:8081")
	ask("LAN, not this host", w.lan, "tcp", "198.51.100.7:8080")
	ask("host, loopback", w.Host, "tcp", "127.0.0.1:8080")
	ask("host, published on loopback", w.Host, "tcp", "127.0.0.1:8081")
	ask("host, own address", w.Host, "tcp", "192.0.2.1:8080")
	ask("neighbour, host's address", w.neighbour, "tcp", "192.0.2.1:8080")
	ask("neighbour, host's address, IPv6", w.neighbour, "tcp", "[2001:db8::1]:8080")
	ask("neighbour, unpublished on the container", w.neighbour, "tcp", "10.1.0.2:80")
	ask("neighbour, host's loopback", w.neighbour, "tcp", "10.1.0.1:8081")
	w.IP("link", "set", "veth0", "type", "bridge_slave", "hairpin", "on")
	ask("itself, host's address", w.Sandbox, "tcp", "192.0.2.1:8080")
	ask("itself, host's address, IPv6", w.Sandbox, "tcp", "[2001:db8::1]:8080")
	return got
}

// TestLifecycle: twice refused, CHECK passes, DEL repeats, rules come back.
func TestLifecycle(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			w := newTown(t)
			b.prepare(w)
			before := w.rules()
			c := call(conf(b.conf, mappings))
			w.Must(plugin.Del, c) // what never existed
			w.Must(plugin.Add, c)
			made := w.rules()
			w.Fails(plugin.Add, c, 100)
			if diff := cmp.Diff(made, w.rules()); diff != "" {
				t.Errorf("a second ADD changed the first one's rules (-first +second):\n%s", diff)
			}
			w.Must(plugin.Check, c)
			bare := c
			bare.Netns, bare.Conf = nltest.NoNetns, `{"cniVersion":"1.0.0","name":"net1","type":"portmap"}`
			w.Must(plugin.Del, bare)
			w.Must(plugin.Del, bare)
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestNotChained: null is no result of a plugin before.
func TestNotChained(t *testing.T) {
	w := newTown(t)
	for _, none := range []string{"", `,"prevResult":null`} {
		c := call(`{"cniVersion":"1.0.0","name":"net1","type":"portmap","runtimeConfig":{"portMappings":` + mappings + `}` + none + `}`)
		for verb, want := range map[string]string{plugin.Add: "must be called as chained plugin", plugin.Check: "Required prevResult missing"} {
			if msg := w.Fails(verb, c, 7); msg != want {
				t.Errorf("%s, %s: %q, want %q", verb, none, msg, want)
			}
		}
	}
}

// TestNoMappings: nothing to publish, nothing done.
func TestNoMappings(t *testing.T) {
	w := newTown(t)
	before := w.Snapshot()
	gate := func(what string) error { return fmt.Errorf("asked for %s", what) }
	c := call(conf("", "[]"))
	c.Gate = gate
	w.Must(plugin.Add, c)
	if diff := cmp.Diff(before, w.Snapshot()); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
}

func TestNoTrace(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			nltest.NoTrace(t, call(conf(backend, mappings)), func(b *nltest.Bed) {
				w := &town{Bed: b, neighbour: b.NewSandbox(), lan: b.NewSandbox()}
				w.build()
			})
		})
	}
}
