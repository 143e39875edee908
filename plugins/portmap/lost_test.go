package portmap_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/portmap"
)

func port(n string) string {
	return `[{"hostPort":` + n + `,"containerPort":80,"protocol":"tcp"},` + `{"hostPort":` + n + `,"containerPort":53,"protocol":"udp","hostIP":"192.0.2.1"}]`
}

// TestLostJournal: the journal is emptied while containers run. DEL and GC remove
// the ports of the container that they are about, and no others.
func TestLostJournal(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		for _, verb := range []string{plugin.Del, plugin.GC} {
			t.Run(backend+" "+verb, func(t *testing.T) {
				w := newTown(t)
				before := w.rules()
				a, b, c := w.at(who{"a", "net1", "10.1.0.2"}, backend, port("8080")), w.at(who{"b", "net1", "10.1.0.3"}, backend, port("8081")), w.at(who{"c", "net2", "10.1.0.4"}, backend, port("8082"))
				w.Must(plugin.Add, a)
				w.Must(plugin.Add, b)
				w.Must(plugin.Add, c)
				if err := os.RemoveAll(string(w.Journal())); err != nil {
					t.Fatal(err)
				}
				if verb == plugin.Del {
					w.Must(plugin.Del, a)
				}
				gc := call(`{"cniVersion":"1.1.0","name":"net1","type":"portmap","cni.dev/valid-attachments":[{"containerID":"b","ifname":"eth0"}]}`)
				w.Must(plugin.GC, gc)
				w.published(t, "10.1.0.3", "10.1.0.4")
				w.Must(plugin.Del, a)
				w.Must(plugin.Del, b)
				w.published(t, "10.1.0.4")
				w.Must(plugin.Del, c)
				if diff := cmp.Diff(before, w.rules()); diff != "" {
					t.Errorf("left behind (-before +after):\n%s", diff)
				}
				w.localnet(t, "0")
			})
		}
	}
}

// published requires that the addresses, and no others of a to c, are led to, and
// that connections from 127.0.0.1 are.
func (w *town) published(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	out := w.rules()
	for _, ip := range []string{"10.1.0.2", "10.1.0.3", "10.1.0.4"} {
		if strings.Contains(out, ip) {
			got = append(got, ip)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("published (-want +got):\n%s\n%s", diff, out)
	}
	w.localnet(t, "1")
}

func (w *town) localnet(t *testing.T, want string) {
	t.Helper()
	if got := strings.TrimSpace(w.Run("cat", "/proc/sys/net/ipv4/conf/br0/route_localnet")); got != want {
		t.Errorf("route_localnet is %s, want %s", got, want)
	}
}

// TestLostRecord: the record of one container is lost, empty or damaged. Its DEL
// removes its ports, which would lead to the address's next owner, and only them;
// so does the DEL of the others leave its ports.
func TestLostRecord(t *testing.T) {
	lose := map[string]func(string) error{
		"lost":    os.Remove,
		"empty":   func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"damaged": func(path string) error { return os.WriteFile(path, []byte(`{"version":1,"net`), 0o600) },
		"later":   func(path string) error { return os.WriteFile(path, []byte(`{"version":9,"netnsID":"new"}`), 0o600) },
	}
	for _, backend := range []string{"nftables", "iptables"} {
		for name, lose := range lose {
			t.Run(backend+" "+name, func(t *testing.T) {
				w := newTown(t)
				before := w.rules()
				a, b := w.at(who{"a", "net1", "10.1.0.2"}, backend, port("8080")), w.at(who{"b", "net1", "10.1.0.3"}, backend, port("8081"))
				w.Must(plugin.Add, a)
				w.Must(plugin.Add, b)
				if err := lose(w.Dir + "/journal/net1/a:eth0:portmap"); err != nil {
					t.Fatal(err)
				}
				w.Must(plugin.Del, b)
				w.published(t, "10.1.0.2")
				w.Must(plugin.Add, b)
				w.published(t, "10.1.0.2", "10.1.0.3")
				w.Must(plugin.Del, a)
				w.published(t, "10.1.0.3")
				w.Must(plugin.Del, b)
				if name == "later" {
					return // the record stays until somebody forgets it, and so do the tables
				}
				if diff := cmp.Diff(before, w.rules()); diff != "" {
					t.Errorf("left behind (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// TestDelWithoutPorts: a DEL that is told neither ports nor addresses finds what
// its container has published by the comments.
func TestDelWithoutPorts(t *testing.T) {
	w := newTown(t)
	a, b := w.at(who{"a", "net1", "10.1.0.2"}, "nftables", port("8080")), w.at(who{"b", "net1", "10.1.0.3"}, "nftables", port("8081"))
	w.Must(plugin.Add, a)
	w.Must(plugin.Add, b)
	if err := os.Remove(w.Dir + "/journal/net1/a:eth0:portmap"); err != nil {
		t.Fatal(err)
	}
	a.Conf = `{"cniVersion":"1.1.0","name":"net1","type":"portmap"}`
	w.Must(plugin.Del, a)
	w.published(t, "10.1.0.3")
}

// TestForeignRecord: a file that cannot be read stops no ADD, DEL or CHECK of
// others, on its own network and on others.
func TestForeignRecord(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		for _, name := range []string{"old:eth0:portmap", "10.99.0.2", "lock"} {
			t.Run(backend+" "+name, func(t *testing.T) {
				w := newTown(t)
				if err := os.MkdirAll(w.Dir+"/journal/net1", 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(w.Dir+"/journal/net1/"+name, []byte("cccc\r\neth0"), 0o600); err != nil {
					t.Fatal(err)
				}
				a, b := w.at(who{"a", "net1", "10.1.0.2"}, backend, port("8080")), w.at(who{"b", "net2", "10.1.0.3"}, backend, port("8081"))
				w.Must(plugin.Add, a)
				w.Must(plugin.Add, b)
				w.Must(plugin.Check, a)
				w.Must(plugin.Del, a)
				w.published(t, "10.1.0.3")
				w.Must(plugin.Del, b)
			})
		}
	}
}

// TestLostSibling: a container has two interfaces on a network, and the record of
// one is lost, with the others of its container or alone. DEL of either leaves what
// the other publishes.
func TestLostSibling(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables", "iptables-legacy"} {
		for _, lost := range []string{"eth0", "eth1", "both", "neither"} {
			t.Run(backend+" "+lost, func(t *testing.T) {
				w := newTown(t)
				if backend == "iptables-legacy" {
					w.Run("iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-j", "RETURN")
				}
				before := w.rules()
				backend := strings.TrimSuffix(backend, "-legacy")
				a, b := w.at(who{"a", "net1", "10.1.0.2"}, backend, port("8080")), w.at(who{"a", "net1", "10.1.0.3"}, backend, port("8081"))
				b.IfName, b.Conf = "eth1", strings.ReplaceAll(b.Conf, `"eth0"`, `"eth1"`)
				w.Must(plugin.Add, a)
				w.Must(plugin.Add, b)
				for _, ifName := range []string{"eth0", "eth1"} {
					if lost != ifName && lost != "both" {
						continue
					}
					if err := os.Remove(w.Dir + "/journal/net1/a:" + ifName + ":portmap"); err != nil {
						t.Fatal(err)
					}
				}
				w.Must(plugin.Del, b)
				w.published(t, "10.1.0.2")
				if out := w.rules(); strings.Contains(out, "8081") || !strings.Contains(out, "8080") {
					t.Errorf("of 8080 and 8081:\n%s", out)
				}
				w.Must(plugin.Del, a)
				if diff := cmp.Diff(before, w.rules()); diff != "" {
					t.Errorf("left behind (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// TestUnrecordedPort: a container's record is lost or cannot be read. Its port is not
// given to another, whichever backend has published it and whichever asks, and is free
// after its DEL.
func TestUnrecordedPort(t *testing.T) {
	lose := map[string]func(string) error{
		"lost":  os.Remove,
		"later": func(path string) error { return os.WriteFile(path, []byte(`{"version":9,"netnsID":"new"}`), 0o600) },
	}
	for name, lose := range lose {
		for _, backends := range [][2]string{{"iptables", "iptables"}, {"iptables", "nftables"}, {"nftables", "iptables"}, {"nftables", "nftables"}} {
			first, second := backends[0], backends[1]
			t.Run(name+" "+first+" "+second, func(t *testing.T) {
				w := newTown(t)
				a := w.at(who{"a", "net1", "10.1.0.2"}, first, `[{"hostPort":8000,"containerPort":8000,"protocol":"tcp"},{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.1"}]`)
				w.Must(plugin.Add, a)
				if err := lose(w.Dir + "/journal/net1/a:eth0:portmap"); err != nil {
					t.Fatal(err)
				}
				for mapping, taken := range map[string]bool{
					tcp8080: true,
					`[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"}]`: false,
					`[{"hostPort":8080,"containerPort":80,"protocol":"udp"}]`:                      false,
					many(100, 7950, 7950): true,
				} {
					b := w.at(who{"b", "net2", "10.1.0.3"}, second, mapping)
					if !taken {
						w.Must(plugin.Add, b)
						w.Must(plugin.Del, b)
					} else if msg := w.Fails(plugin.Add, b, 101); !strings.Contains(msg, `already published by container "a"`) || !strings.Contains(msg, "netcleat forget net1 a") {
						t.Errorf("message: %s", msg)
					}
				}
				if name == "later" {
					w.Must(plugin.Del, a)
				} else if err := portmap.Collect(t.Context(), nil, w.Journal(), journal.Key{Network: "net1", ContainerID: "a"}); err != nil { // as netcleat forget does
					t.Fatal(err)
				}
				w.Must(plugin.Add, w.at(who{"b", "net2", "10.1.0.3"}, second, tcp8080))
			})
		}
	}
}

// TestDelWithOtherRecords: only portmap's record is lost, and DEL is told neither
// ports nor addresses: what is the container's by the comments goes, with
// route_localnet.
func TestDelWithOtherRecords(t *testing.T) {
	w := newTown(t)
	before := w.rules()
	a := w.at(who{"a", "net1", "10.1.0.2"}, "nftables", strings.TrimSuffix(port("8080"), "]")+`,{"hostPort":9000,"containerPort":9000,"protocol":"udp"},{"hostPort":9001,"containerPort":9001,"protocol":"udp"}]`)
	w.Must(plugin.Add, a)
	if err := os.Rename(w.Dir+"/journal/net1/a:eth0:portmap", w.Dir+"/journal/net1/a:eth0:bridge"); err != nil {
		t.Fatal(err)
	}
	a.Conf = `{"cniVersion":"1.1.0","name":"net1","type":"portmap"}`
	w.Must(plugin.Del, a)
	if diff := cmp.Diff(before, w.rules()); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
	w.localnet(t, "0")
}

// TestLocalnetOfAnotherNetwork: two networks with a subnet each are on one bridge,
// and all records are lost. DEL of the one's last container leaves route_localnet.
func TestLocalnetOfAnotherNetwork(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			w := newTown(t)
			w.Addr("br0", "10.2.0.1/16")
			a, b := w.at(who{"a", "net1", "10.1.0.2"}, backend, port("8080")), w.at(who{"b", "net2", "10.2.0.2"}, backend, port("8081"))
			w.Must(plugin.Add, a)
			w.Must(plugin.Add, b)
			if err := os.RemoveAll(string(w.Journal())); err != nil {
				t.Fatal(err)
			}
			w.Must(plugin.Del, a)
			w.localnet(t, "1")
			w.Must(plugin.Del, b)
			w.localnet(t, "0")
		})
	}
}

// TestSameChain: the reference names a container's chain by the network's and the
// container's name without anything between them. Containers of two networks that
// have one name for it share it: each has its port, and DEL of one leaves the other's.
func TestSameChain(t *testing.T) {
	for _, backend := range []string{"iptables", "iptables-legacy"} {
		t.Run(backend, func(t *testing.T) {
			w := newTown(t)
			if backend == "iptables-legacy" {
				w.Run("iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-j", "RETURN")
			}
			before := w.rules()
			a, b := w.at(who{"c", "ab", "10.1.0.2"}, "iptables", port("8080")), w.at(who{"bc", "a", "10.1.0.3"}, "iptables", port("8081"))
			w.Must(plugin.Add, a)
			w.Must(plugin.Add, b)
			w.published(t, "10.1.0.2", "10.1.0.3")
			w.Must(plugin.Check, a)
			w.Must(plugin.Check, b)
			w.Must(plugin.Del, a)
			w.published(t, "10.1.0.3")
			w.Must(plugin.Check, b)
			if out := w.rules(); strings.Contains(out, "8080") || !strings.Contains(out, "8081") {
				t.Errorf("of 8080 and 8081:\n%s", out)
			}
			w.Must(plugin.Del, b)
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}
