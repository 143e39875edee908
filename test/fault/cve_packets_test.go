package fault

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/reconcile"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/bridge"
	"github.com/netcleat/netcleat/plugins/firewall"
	"github.com/netcleat/netcleat/plugins/portmap"
)

// at publishes a port at an address of the host.
func (w *town) at(hostIP string) nltest.Call {
	c := w.publish
	c.Conf = strings.Replace(c.Conf, `"hostPort":8080,`, `"hostPort":8080,"hostIP":"`+hostIP+`",`, 1)
	return c
}

// forge has ns send packets to and from 127/8 out of its eth0, and take the
// answers.
func (w *town) forge(ns *netns.NS, via string) {
	w.t.Helper()
	w.In(ns, func() {
		must(w.t, os.WriteFile("/proc/sys/net/ipv4/conf/eth0/route_localnet", []byte("1"), 0o644))
		w.IP("addr", "flush", "dev", "lo")
		w.IP("route", "add", "127.0.0.0/8", "via", via, "dev", "eth0")
	})
}

// localnet sets route_localnet of the host's link.
func (w *town) localnet(link, value string) {
	w.t.Helper()
	must(w.t, os.WriteFile("/proc/sys/net/ipv4/conf/"+link+"/route_localnet", []byte(value), 0o644))
}

// reconcile restores what was flushed; before each change it calls look.
func (w *town) reconcile(look func(change string)) {
	w.t.Helper()
	var out bytes.Buffer
	o := reconcile.Options{Journal: w.Journal(), Out: &out, Gate: gate.Gate(func(what string) error { look(what); return nil })}
	if err := reconcile.Run(w.t.Context(), o); err != nil {
		w.t.Fatalf("reconcile: %v\n%s", err, &out)
	}
}

// What listens on the host's loopback is reached by packets neither from a
// neighbour on the LAN nor from the container behind the link that has
// route_localnet, nor is the port that is published there.
func TestCVE_2020_8558_Packets(t *testing.T) {
	eachBackend(t, func(w *town) {
		t := w.t
		w.Serve(w.Host, "tcp", "127.0.0.1:9999")
		w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
		w.Must(plugin.Add, w.at("127.0.0.1"))
		if w.Ask(w.Host, "tcp", "127.0.0.1:8080") == "" {
			t.Fatal("127.0.0.1:8080 does not answer on the host")
		}
		w.forge(w.lan, "192.0.2.1")
		w.forge(w.neighbour, "10.1.0.1")
		for who, ns := range map[string]*netns.NS{"the LAN": w.lan, "a container": w.neighbour} {
			for _, addr := range []string{"127.0.0.1:9999", "127.0.0.1:8080", "192.0.2.1:8080"} {
				if got := w.Ask(ns, "tcp", addr); got != "" {
					t.Errorf("%s answers %s: %s", addr, who, got)
				}
			}
		}
		// Only the drop keeps the container out, and only the kernel the LAN.
		w.localnet("vlan0", "1")
		if got := w.Ask(w.lan, "tcp", "127.0.0.1:9999"); got != "" {
			t.Errorf("with route_localnet on its link the LAN is answered: %s", got)
		}
		w.Run("nft", "flush", "ruleset")
		if w.Ask(w.lan, "tcp", "127.0.0.1:9999") == "" || w.Ask(w.neighbour, "tcp", "127.0.0.1:9999") == "" {
			t.Error("without the drop there is no answer either: the test sees nothing")
		}
	})
}

// Before, during and after the rules have been restored, a port that is published
// on loopback is the host's alone, and the drop is there before route_localnet.
func TestCVE_2025_54388_Reconcile(t *testing.T) {
	eachBackend(t, func(w *town) {
		t := w.t
		w.Serve(w.Host, "tcp", "127.0.0.1:9999")
		w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
		w.Must(plugin.Add, w.at("127.0.0.1"))
		w.forge(w.lan, "192.0.2.1")
		w.forge(w.neighbour, "10.1.0.1")
		closed := func(when string) {
			for _, addr := range []string{"192.0.2.1:8080", "127.0.0.1:8080", "127.0.0.1:9999"} {
				if got := w.Ask(w.lan, "tcp", addr); got != "" {
					t.Errorf("%s: %s answers the LAN: %s", when, addr, got)
				}
			}
		}
		before := w.Run("nft", "-s", "list", "ruleset")
		w.Run("nft", "flush", "ruleset")
		w.localnet("br0", "0") // as `sysctl --system` leaves it
		closed("after the flush")
		if w.Ask(w.Host, "tcp", "127.0.0.1:8080") != "" {
			t.Error("the port answers the host without rules: the flush flushed nothing")
		}
		changes := 0
		w.reconcile(func(change string) {
			changes++
			closed("before " + change)
			if got := w.Ask(w.neighbour, "tcp", "127.0.0.1:9999"); got != "" {
				t.Errorf("before %s: the host's loopback answers a container: %s", change, got)
			}
		})
		if changes < 2 {
			t.Errorf("%d changes", changes)
		}
		closed("after reconcile")
		if got := w.Ask(w.neighbour, "tcp", "127.0.0.1:9999"); got != "" {
			t.Errorf("after reconcile: the host's loopback answers a container: %s", got)
		}
		if w.Ask(w.Host, "tcp", "127.0.0.1:8080") == "" {
			t.Error("after reconcile the port does not answer the host")
		}
		if after := w.Run("nft", "-s", "list", "ruleset"); strings.Count(after, "\n") != strings.Count(before, "\n") {
			t.Errorf("rules before the flush:\n%s\nafter reconcile:\n%s", before, after)
		}
	})
}

// Bridges that firewall keeps apart are apart again after the rules have been
// flushed and restored.
func TestCVE_2025_54410(t *testing.T) {
	w := nltest.New(t)
	w.Forward()
	other := w.NewSandbox()
	attach := func(n int, c nltest.Call) {
		stub := &nltest.StubIPAM{Addresses: []string{fmt.Sprintf("10.%d.0.2/24 10.%d.0.1", n, n)}, Routes: []string{"0.0.0.0/0"}}
		c.Table = plugin.Table{"bridge": bridge.Plugin, "firewall": firewall.Plugin, "stub": stub.Plugin()}
		c.Plugin, c.Conf = "bridge", fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net%d","type":"bridge","bridge":"br%d","isGateway":true,"ipam":{"type":"stub"}}`, n, n)
		a := w.Do(plugin.Add, c)
		if a.Exit != 0 {
			t.Fatal(a.Stdout)
		}
		c.Plugin, c.Conf = "firewall", fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net%d","type":"firewall","ingressPolicy":"same-bridge","prevResult":%s}`, n, a.Stdout)
		w.Must(plugin.Add, c)
	}
	attach(1, nltest.Call{})
	attach(2, nltest.Call{ContainerID: "c2", Netns: w.PathOf(other)})
	w.Serve(other, "tcp", "10.2.0.2:80")
	reached := func() bool { return w.Ask(w.Sandbox, "tcp", "10.2.0.2:80") != "" }
	if reached() {
		t.Error("the networks are not apart")
	}
	w.Run("nft", "flush", "ruleset")
	if !reached() {
		t.Error("without rules they are apart, too: the test sees nothing")
	}
	(&town{Bed: w, t: t}).reconcile(func(string) {})
	if reached() {
		t.Error("after reconcile the networks are not apart")
	}
}

// A port published at an address that is not the host's takes nobody's traffic:
// not what passes through to that address, nor what the host sends there.
func TestCVE_2020_8554(t *testing.T) {
	eachBackend(t, func(w *town) {
		t := w.t
		if a := w.Do(plugin.Add, w.at("198.51.100.9")); a.Exit != 0 {
			t.Logf("refused: %s", a.Stdout) // as good
		}
		w.Serve(w.far, "tcp", "198.51.100.9:8080")
		w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
		for who, ns := range map[string]*netns.NS{"192.0.2.9": w.lan, "10.1.0.3": w.neighbour, "198.51.100.1": w.Host} {
			if got := w.Ask(ns, "tcp", "198.51.100.9:8080"); got != who {
				t.Errorf("what %s sends to 198.51.100.9 is captured: answer %q", who, got)
			}
		}
	})
}

// A container sees who asks: nobody from outside comes from loopback or from the
// bridge, which it might trust.
func TestCVE_2021_20199(t *testing.T) {
	eachBackend(t, func(w *town) {
		w.Must(plugin.Add, w.publish)
		w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
		if got := w.Ask(w.lan, "tcp", "192.0.2.1:8080"); got != "192.0.2.9" {
			w.t.Errorf("the container sees %q, not the asker", got)
		}
	})
}

// Publishing one port opens no other: behind a firewall that forwards nothing, a
// container is reached by what is published and by nothing else, also not by
// those who route to it directly. (moby#14041, #45610: no CVE.)
func TestMoby45610(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			w := newTown(t, backend)
			w.Run("iptables", "-P", "FORWARD", "DROP")
			wall := w.publish
			wall.Table, wall.Plugin = plugin.Table{"firewall": firewall.Plugin, "portmap": portmap.Plugin}, "firewall"
			wall.Conf = strings.Replace(wall.Conf, `"type":"portmap"`, `"type":"firewall"`, 1)
			w.Must(plugin.Add, w.publish)
			w.Must(plugin.Add, wall)
			w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
			w.Serve(w.Sandbox, "tcp", "10.1.0.2:81")
			if w.Ask(w.lan, "tcp", "192.0.2.1:8080") == "" {
				t.Error("the published port does not answer")
			}
			for _, addr := range []string{"10.1.0.2:81", "10.1.0.2:80"} {
				if got := w.Ask(w.lan, "tcp", addr); got != "" {
					t.Errorf("%s answers the LAN, which routes to it directly: %s", addr, got)
				}
			}
			w.Run("iptables", "-P", "FORWARD", "ACCEPT")
			if w.Ask(w.lan, "tcp", "10.1.0.2:81") == "" {
				t.Error("nor does it with a firewall that forwards: the test sees nothing")
			}
		})
	}
}

// What keeps containers apart or their addresses honest and cannot be made fails
// the ADD: nothing is attached without.
func TestCVE_2023_28840(t *testing.T) {
	stub := &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1"}}
	table := plugin.Table{"bridge": bridge.Plugin, "firewall": firewall.Plugin, "stub": stub.Plugin()}
	prev := `"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"br0"},{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":1,"address":"10.1.0.2/16"}]}`
	for what, c := range map[string]struct {
		nltest.Call
		change *regexp.Regexp
	}{
		"macspoofchk":   {nltest.Call{Plugin: "bridge", Conf: `"type":"bridge","bridge":"br0","macspoofchk":true,"ipam":{"type":"stub"}}`}, regexp.MustCompile("^check hardware addresses")},
		"ingressPolicy": {nltest.Call{Plugin: "firewall", Conf: `"type":"firewall","ingressPolicy":"same-bridge",` + prev + `}`}, regexp.MustCompile("isolate")},
	} {
		t.Run(what, func(t *testing.T) {
			w := nltest.New(t)
			w.Bridge("br0")
			c.Table, c.Conf = table, `{"cniVersion":"1.0.0","name":"net",`+c.Conf
			refused := ""
			c.Gate = func(change string) error {
				if c.change.MatchString(change) {
					refused = change
					return unix.EOPNOTSUPP
				}
				return nil
			}
			a := w.Do(plugin.Add, c.Call)
			if refused == "" {
				t.Fatal("no such change was made")
			}
			if a.Exit == 0 {
				t.Errorf("attached without %q", refused)
			}
			if links := w.SandboxIP("-br", "link"); strings.Contains(links, "eth0") {
				t.Errorf("left %s", links)
			}
		})
	}
}
