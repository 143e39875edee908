package portmap_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/portmap"
)

const tcp8080 = `[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]`

// at is the call for a container with an address of its own.
func (w *town) at(c who, backend, mappings string) nltest.Call {
	at := call(fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"portmap","backend":%q,"runtimeConfig":{"portMappings":%s},
	 "prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"%s/16"}]}}`, c.network, backend, mappings, c.ip))
	at.ContainerID = c.id
	return at
}

type who struct{ id, network, ip string }

// TestConflict: a port belongs to one live container, and to nobody dead.
func TestConflict(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			w := newTown(t)
			w.Must(plugin.Add, w.at(who{"first", "net1", "10.1.0.2"}, backend, tcp8080))
			for mappings, taken := range map[string]bool{
				tcp8080: true,
				`[{"hostPort":8080,"containerPort":80,"protocol":"udp"}]`:                      false,
				`[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.1"}]`: true,
				`[{"hostPort":8081,"containerPort":80,"protocol":"tcp"}]`:                      false,
				many(100, 8000, 8000): true,
			} {
				c := w.at(who{"second", "net2", "10.1.0.3"}, backend, mappings)
				before := w.rules()
				if !taken {
					w.Must(plugin.Add, c)
					w.Must(plugin.Del, c)
				} else if msg := w.Fails(plugin.Add, c, 101); !strings.Contains(msg, `already published by container "first"`) {
					t.Errorf("message: %s", msg)
				}
				if diff := cmp.Diff(before, w.rules()); diff != "" {
					t.Errorf("%s left behind (-before +after):\n%s", mappings, diff)
				}
			}
			other := w.at(who{"first", "net2", "10.1.0.2"}, backend, tcp8080)
			w.Must(plugin.Add, other) // another network of the same container
			w.Must(plugin.Check, other)
			w.Must(plugin.Del, other)
			last := w.at(who{"second", "net2", "10.1.0.3"}, backend, tcp8080)
			last.Conf = strings.Replace(last.Conf, `"name"`, `"hostPortConflict":"replace","name"`, 1)
			w.Must(plugin.Add, last)
			w.Must(plugin.Del, w.at(who{"first", "net1", "10.1.0.2"}, backend, tcp8080))
			w.Must(plugin.Check, last) // the first one's DEL took nothing from it
		})
	}
}

// TestConflictOfBackends: a port belongs to one live container, whichever backend
// published it, and whichever is asked for it.
func TestConflictOfBackends(t *testing.T) {
	for first, second := range map[string]string{"nftables": "iptables", "iptables": "nftables"} {
		t.Run(first+" then "+second, func(t *testing.T) {
			w := newTown(t)
			w.Must(plugin.Add, w.at(who{"first", "net1", "10.1.0.2"}, first, tcp8080))
			before := w.rules()
			if msg := w.Fails(plugin.Add, w.at(who{"second", "net2", "10.1.0.3"}, second, tcp8080), 101); !strings.Contains(msg, `already published by container "first"`) {
				t.Errorf("message: %s", msg)
			}
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
			w.Must(plugin.Del, w.at(who{"first", "net1", "10.1.0.2"}, first, tcp8080))
			w.Must(plugin.Add, w.at(who{"second", "net2", "10.1.0.3"}, second, tcp8080))
			w.Must(plugin.Check, w.at(who{"second", "net2", "10.1.0.3"}, second, tcp8080))
		})
	}
}

// TestOneOfMany: of many containers that want a port at the same time one gets it.
func TestOneOfMany(t *testing.T) {
	w := newTown(t)
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		backend := []string{"nftables", "iptables"}[i%2]
		c := w.at(who{fmt.Sprintf("c%d", i), fmt.Sprintf("net%d", i%4), fmt.Sprintf("10.1.1.%d", i)}, backend, tcp8080)
		wg.Go(func() {
			w.In(w.Host, func() {
				switch a := w.Do(plugin.Add, c); {
				case a.Exit == 0:
					won.Add(1)
				case !strings.Contains(a.Stdout, "already published"):
					t.Errorf("%s: %s", c.ContainerID, a.Stdout)
				}
			})
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 16 containers have the port", won.Load())
	}
}

// TestFirstOfOwnMappings: a port that a container has twice leads where the first
// one says.
func TestFirstOfOwnMappings(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			w := newTown(t)
			before := w.rules()
			w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
			w.Serve(w.Sandbox, "tcp", "[fd01::2]:80")
			c := call(conf(backend, `[
			 {"hostPort":8080,"containerPort":80},{"hostPort":8080,"containerPort":81},{"hostPort":8080,"containerPort":80,"hostIP":"0.0.0.0"},
			 {"hostPort":8081,"containerPort":80,"hostIP":"192.0.2.1"},{"hostPort":8081,"containerPort":81},
			 {"hostPort":8082,"containerPort":80,"hostIP":"::"},{"hostPort":8082,"containerPort":81}]`))
			w.Must(plugin.Add, c)
			w.Must(plugin.Check, c)
			got := map[string]string{}
			for _, to := range []string{"192.0.2.1:8080", "[2001:db8::1]:8080", "192.0.2.1:8081", "[2001:db8::1]:8081", "192.0.2.1:8082", "[2001:db8::1]:8082"} {
				got[to] = w.Ask(w.lan, "tcp", to)
			}
			want := map[string]string{
				"192.0.2.1:8080": "192.0.2.9", "[2001:db8::1]:8080": "2001:db8::9", "192.0.2.1:8081": "192.0.2.9", "[2001:db8::1]:8081": "",
				"192.0.2.1:8082": "", "[2001:db8::1]:8082": "2001:db8::9",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("who answers (-want +got):\n%s", diff)
			}
			w.Must(plugin.Del, c)
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestDeadOwner: what a killed container left is no conflict.
func TestDeadOwner(t *testing.T) {
	w := newTown(t)
	dead := w.at(who{"dead", "net1", "10.1.0.2"}, "", tcp8080)
	process := exec.Command("unshare", "--net", "sh", "-c", "echo; read end")
	in, err := process.StdinPipe()
	out, oerr := process.StdoutPipe()
	if err := errors.Join(err, oerr, process.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it is in a namespace of its own
		t.Fatal(err)
	}
	dead.Netns = fmt.Sprintf("/proc/%d/ns/net", process.Process.Pid)
	w.Must(plugin.Add, dead)
	c := w.at(who{"next", "net1", "10.1.0.3"}, "", tcp8080)
	w.Fails(plugin.Add, c, 101)
	_ = in.Close()
	_ = process.Wait() // its status says nothing
	w.Must(plugin.Add, c)
	w.Must(plugin.Del, dead)
	w.Must(plugin.Check, c)
}

// TestRanges: neighbours, the highest port, and removal of one among several.
func TestRanges(t *testing.T) {
	w := newTown(t)
	before := w.rules()
	var calls []nltest.Call
	for i, first := range []int{9000, 9016, 65504, 65520} {
		c := w.at(who{fmt.Sprintf("c%d", i), "net1", fmt.Sprintf("10.1.0.%d", i+2)}, "", many(16, first, first))
		w.Must(plugin.Add, c)
		w.Must(plugin.Check, c)
		calls = append(calls, c)
	}
	w.Fails(plugin.Add, w.at(who{"x", "net1", "10.1.0.9"}, "", many(16, 9031, 9031)), 101)
	single := func(port int) string {
		return fmt.Sprintf(`[{"hostPort":%d,"containerPort":80,"protocol":"tcp"}]`, port)
	}
	for port, taken := range map[int]bool{9000: true, 9005: true, 9031: true, 65535: true, 8999: false, 9032: false, 65503: false} {
		c := w.at(who{"x", "net2", "10.1.0.9"}, "", single(port))
		if taken {
			w.Fails(plugin.Add, c, 101)
		} else {
			w.Must(plugin.Add, c)
			w.Must(plugin.Del, c)
		}
	}
	w.Must(plugin.Del, calls[1])
	w.Must(plugin.Add, w.at(who{"x", "net1", "10.1.0.9"}, "", many(16, 9016, 9016)))
	w.Must(plugin.Del, w.at(who{"x", "net1", "10.1.0.9"}, "", "[]"))
	for _, c := range calls {
		w.Must(plugin.Del, c)
	}
	if diff := cmp.Diff(before, w.rules()); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestNoExpiry: where the kernel cannot let elements expire, they are deleted.
func TestNoExpiry(t *testing.T) {
	w := newTown(t)
	stay := w.at(who{"stay", "net1", "10.1.0.2"}, "", tcp8080)
	w.Must(plugin.Add, stay)
	w.Run("nft", "flush", "chain", "ip", "cni_hostport", "hostports")
	for _, name := range []string{"ports", "ports_any"} {
		old := w.Run("nft", "list", "map", "ip", "cni_hostport", name)
		w.Run("nft", "delete", "map", "ip", "cni_hostport", name)
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(strings.Replace(old, "flags timeout", "", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		w.Run("nft", "-f", file)
	}
	c := w.at(who{"go", "net1", "10.1.0.3"}, "", `[{"hostPort":8081,"containerPort":80,"protocol":"tcp"}]`)
	w.Must(plugin.Add, c)
	w.Must(plugin.Del, c)
	if out := w.rules(); strings.Contains(out, "8081") || !strings.Contains(out, "8080") {
		t.Errorf("after DEL of one of two:\n%s", out)
	}
}

// TestNoJournal: what the reference left goes, though nothing can be written.
func TestNoJournal(t *testing.T) {
	w := newTown(t)
	c := w.at(who{"c1", "net1", "10.1.0.2"}, "nftables", tcp8080)
	w.reference(t, "ADD", c)
	if err := os.WriteFile(string(w.Journal()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Must(plugin.Del, c)
	if out := w.rules(); strings.Contains(out, "10.1.0.2") {
		t.Errorf("left behind:\n%s", out)
	}
}

// TestConditions: they hold for their own containers' ports only.
func TestConditions(t *testing.T) {
	for _, tc := range []struct{ backend, conditions string }{
		{"nftables", `"conditionsV4":["ip","saddr","!=","192.0.2.9"],"conditionsV6":["ip6","saddr","!=","2001:db8::9"]`},
		{"iptables", `"conditionsV4":["!","-s","192.0.2.9"],"conditionsV6":["!","-s","2001:db8::9"]`},
	} {
		t.Run(tc.backend, func(t *testing.T) {
			w := newTown(t)
			w.serve()
			before := w.rules()
			c := call(conf("", tcp8080, ","+tc.conditions))
			w.Must(plugin.Add, c)
			free := w.at(who{"free", "net2", "10.1.0.2"}, tc.backend, `[{"hostPort":8090,"containerPort":80,"protocol":"tcp"}]`)
			w.Must(plugin.Add, free)
			w.Must(plugin.Check, c)
			got := map[string]string{
				"LAN":                w.Ask(w.lan, "tcp", "192.0.2.1:8080"),
				"LAN, IPv6":          w.Ask(w.lan, "tcp", "[2001:db8::1]:8080"),
				"neighbour":          w.Ask(w.neighbour, "tcp", "192.0.2.1:8080"),
				"LAN, without them":  w.Ask(w.lan, "tcp", "192.0.2.1:8090"),
				"neighbour, without": w.Ask(w.neighbour, "tcp", "192.0.2.1:8090"),
			}
			want := map[string]string{
				"LAN": "", "LAN, IPv6": "", "neighbour": "10.1.0.1", "LAN, without them": "192.0.2.9", "neighbour, without": "10.1.0.1",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("who reaches the port (-want +got):\n%s\n%s", diff, w.rules())
			}
			w.Must(plugin.Del, c)
			w.Must(plugin.Del, free)
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestForeignMark: a packet that nothing maps keeps the mark that it came with, and
// gets none.
func TestForeignMark(t *testing.T) {
	w := newTown(t)
	w.Must(plugin.Add, call(conf("nftables", tcp8080)))
	w.Serve(w.Host, "tcp", "192.0.2.1:7777")
	w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
	w.Run("nft", "add table ip foreign; add chain ip foreign after { type filter hook input priority 0; }; add rule ip foreign after ct state new tcp dport 7777 meta mark & 0x2000 == 0x2000 counter")
	marked := func() bool {
		return !strings.Contains(w.Run("nft", "list", "table", "ip", "foreign"), "packets 0 ")
	}
	if w.Ask(w.lan, "tcp", "192.0.2.1:7777") == "" || marked() {
		t.Errorf("a packet without a mark:\n%s", w.Run("nft", "list", "ruleset"))
	}
	w.Run("nft", "add chain ip foreign before { type filter hook prerouting priority -150; }; add rule ip foreign before meta mark set meta mark | 0x2000")
	if w.Ask(w.lan, "tcp", "192.0.2.1:7777") == "" || !marked() {
		t.Errorf("a packet with a mark:\n%s", w.Run("nft", "list", "ruleset"))
	}
	if got := w.Ask(w.lan, "tcp", "192.0.2.1:8080"); got != "192.0.2.9" {
		t.Errorf("a published port, with a mark: seen as %q", got)
	}
}

// TestMarkBit: another bit than the default's takes iptables, which knows it.
func TestMarkBit(t *testing.T) {
	w := newTown(t)
	for more, want := range map[string]string{"": "table ip cni_hostport", `,"markMasqBit":13`: "table ip cni_hostport", `,"markMasqBit":5`: "0x20"} {
		c := call(conf("", tcp8080, more))
		w.Must(plugin.Add, c)
		w.Must(plugin.Check, c)
		if out := w.rules(); !strings.Contains(out, want) {
			t.Errorf("%s: no %s in\n%s", more, want, out)
		}
		w.Must(plugin.Del, c)
	}
}

// TestFlushed: CHECK notices, Reconcile restores, and does so once.
func TestFlushed(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			w := newTown(t)
			b.prepare(w)
			c := call(conf(b.conf, mappings))
			w.Must(plugin.Add, c)
			made := w.rules()
			w.Run("nft", "flush", "ruleset")
			if b.name == "legacy" {
				for _, cmd := range []string{"iptables-legacy", "ip6tables-legacy"} {
					w.Run(cmd, "-t", "nat", "-F")
					w.Run(cmd, "-t", "nat", "-X")
				}
				w.Run("iptables-legacy", "-t", "raw", "-F")
			}
			w.Fails(plugin.Check, c, 102)
			records, err := w.Journal().Network("net1")
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := portmap.Reconcile(t.Context(), nil, w.Journal(), records[0]); err != nil {
					t.Fatal(err)
				}
			}
			w.Must(plugin.Check, c)
			if diff := cmp.Diff(byChain(made), byChain(w.rules())); diff != "" {
				t.Errorf("reconciled (-made +now):\n%s", diff)
			}
		})
	}
}

// byChain returns what a list of rules says of each chain of each table: iptables
// makes those of the kernel's hooks when it first needs them, so that their order says
// nothing.
func byChain(rules string) (all []string) {
	for table := range strings.SplitSeq(rules, "\ntable ") {
		name, _, _ := strings.Cut(table, "\n")
		for chain := range strings.SplitSeq(table, "\n\tchain ") {
			chain, _, _ = strings.Cut(chain, "\n#") // nft's warning belongs to the next table
			all = append(all, name+" "+strings.TrimRight(chain, "\n\t }"))
		}
	}
	slices.Sort(all)
	return all
}

// TestSwitch: DEL and GC find what was made with another backend.
func TestSwitch(t *testing.T) {
	for from, to := range map[string]string{"iptables": "nftables", "nftables": "iptables"} {
		t.Run(from+" to "+to, func(t *testing.T) {
			w := newTown(t)
			before := w.rules()
			w.Must(plugin.Add, call(conf(from, tcp8080)))
			w.Must(plugin.Del, call(conf(to, tcp8080)))
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestGC keeps what is valid and removes the rest, records or not.
func TestGC(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			w := newTown(t)
			before := w.rules()
			stay := w.at(who{"stay", "net1", "10.1.0.2"}, backend, tcp8080)
			w.Must(plugin.Add, stay)
			w.Must(plugin.Add, w.at(who{"go", "net1", "10.1.0.3"}, backend, `[{"hostPort":8081,"containerPort":80,"protocol":"tcp"}]`))
			w.Must(plugin.Add, w.at(who{"lost", "net1", "10.1.0.4"}, backend, `[{"hostPort":8082,"containerPort":80,"protocol":"tcp"}]`))
			if err := os.Remove(w.Dir + "/journal/net1/lost:eth0:portmap"); err != nil {
				t.Fatal(err)
			}
			w.Must(plugin.Add, w.at(who{"else", "net2", "10.1.0.5"}, backend, `[{"hostPort":8083,"containerPort":80,"protocol":"tcp"}]`))
			gc := call(`{"cniVersion":"1.1.0","name":"net1","type":"portmap","cni.dev/valid-attachments":[{"containerID":"stay","ifname":"eth0"}]}`)
			w.Must(plugin.GC, gc)
			out := w.rules()
			for ip, want := range map[string]bool{"10.1.0.2": true, "10.1.0.3": false, "10.1.0.4": false, "10.1.0.5": true} {
				if strings.Contains(out, ip) != want {
					t.Errorf("%s: want %v\n%s", ip, want, out)
				}
			}
			w.Must(plugin.Check, stay)
			for _, net := range []string{"net1", "net2"} {
				gc.Conf = fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"portmap","cni.dev/valid-attachments":null}`, net)
				w.Must(plugin.GC, gc)
			}
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestGCBesideADD: GC leaves the ports of a container that came while it waited for
// its turn, and is not in its list.
func TestGCBesideADD(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			w := newTown(t)
			c := w.at(who{"new", "net1", "10.1.0.2"}, backend, tcp8080)
			w.Must(plugin.Add, c)
			w.Must(plugin.Add, w.at(who{"old", "net1", "10.1.0.3"}, backend, `[{"hostPort":8081,"containerPort":80,"protocol":"tcp"}]`))
			record, aside := w.Dir+"/journal/net1/new:eth0:portmap", w.Dir+"/record"
			unlock, err := w.Journal().Lock(t.Context(), "published ports")
			if err = errors.Join(err, os.Rename(record, aside)); err != nil {
				t.Fatal(err)
			}
			gc := call(`{"cniVersion":"1.1.0","name":"net1","type":"portmap","cni.dev/valid-attachments":[{"containerID":"old","ifname":"eth0"}]}`)
			gc.Waits = func() {
				if err := errors.Join(os.Rename(aside, record), unlock()); err != nil {
					t.Error(err)
				}
			}
			w.Must(plugin.GC, gc)
			w.Must(plugin.Check, c)
		})
	}
}

// TestTwoNetworksOneBridge: the last port of one network leaves those of another on
// the same bridge at 127.0.0.1.
func TestTwoNetworksOneBridge(t *testing.T) {
	w := newTown(t)
	localnet := func() string { return strings.TrimSpace(w.Run("cat", "/proc/sys/net/ipv4/conf/br0/route_localnet")) }
	a := w.at(who{"a", "net1", "10.1.0.2"}, "", tcp8080)
	b := w.at(who{"b", "net2", "10.1.0.3"}, "", strings.Replace(tcp8080, "8080", "8081", 1))
	w.Must(plugin.Add, a)
	w.Must(plugin.Add, b)
	w.Must(plugin.Del, a)
	if got := localnet(); got != "1" {
		t.Errorf("route_localnet is %s while net2 needs it", got)
	}
	w.Must(plugin.Check, b)
	w.Run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/br0/route_localnet")
	w.Fails(plugin.Check, b, 102)
	w.Must(plugin.Del, b)
	if got := localnet(); got != "0" {
		t.Errorf("route_localnet is %s after the last", got)
	}
}

// TestUndoFails: what a failed ADD could not take back has a record, by which DEL
// finds it.
func TestUndoFails(t *testing.T) {
	w := newTown(t)
	w.Must(plugin.Add, w.at(who{"other", "net1", "10.1.0.3"}, "nftables", `[{"hostPort":8081,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.1"}]`))
	c := w.at(who{"a", "net1", "10.1.0.2"}, "nftables", tcp8080)
	c.Gate = (&nltest.Faults{At: 2, On: true}).Gate
	w.Fails(plugin.Add, c, 999)
	const element = `8080 comment "a eth0 net1"` // where it does not expire
	if !strings.Contains(w.rules(), element) {
		t.Fatal("nothing was left to be found")
	}
	c.Gate = nil
	w.Must(plugin.Del, c)
	if out := w.rules(); strings.Contains(out, element) {
		t.Errorf("left behind:\n%s", out)
	}
}

// TestGCLeavesWhatExpires: an element may be gone between GC's look and its
// transaction, which then fails. DEL leaves such for a millisecond; here it is an
// hour.
func TestGCLeavesWhatExpires(t *testing.T) {
	w := newTown(t)
	w.Must(plugin.Add, w.at(who{"lost", "net1", "10.1.0.4"}, "nftables", tcp8080))
	w.Must(plugin.Add, w.at(who{"else", "net2", "10.1.0.5"}, "nftables", `[{"hostPort":8083,"containerPort":80,"protocol":"tcp"}]`))
	if err := os.Remove(w.Dir + "/journal/net1/lost:eth0:portmap"); err != nil {
		t.Fatal(err)
	}
	element := regexp.MustCompile(`(tcp \. 8080) (comment "[^"]+") : (\S+ \. 80)`).FindStringSubmatch(w.rules())
	if element == nil {
		t.Fatalf("no element in\n%s", w.rules())
	}
	w.Run("nft", "delete element ip cni_hostport ports_any { "+element[1]+" }")
	w.Run("nft", "add element ip cni_hostport ports_any { "+element[1]+" timeout 1h "+element[2]+" : "+element[3]+" }")
	w.Must(plugin.GC, call(`{"cniVersion":"1.1.0","name":"net1","type":"portmap","cni.dev/valid-attachments":null}`))
	if out := w.Run("nft", "list", "map", "ip", "cni_hostport", "ports_any"); !strings.Contains(out, element[2]) {
		t.Errorf("what expires by itself was removed:\n%s", out)
	}
}

// reference runs the reference's portmap.
func (w *town) reference(t *testing.T, verb string, c nltest.Call) {
	t.Helper()
	bin := nltest.Reference(t)
	cmd := exec.Command(bin + "/portmap")
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+c.ContainerID, "CNI_NETNS="+w.Path, "CNI_IFNAME=eth0", "CNI_PATH="+bin)
	cmd.Stdin = strings.NewReader(c.Conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("reference %s: %v\n%s", verb, err, out)
	}
}

// TestReference: DEL removes what the reference made for the attachment, and
// both live beside each other.
func TestReference(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			w := newTown(t)
			theirs := w.at(who{"theirs", "net1", "10.1.0.3"}, backend, tcp8080)
			w.reference(t, "ADD", theirs)
			ours := w.at(who{"ours", "net1", "10.1.0.2"}, backend, `[{"hostPort":8081,"containerPort":80,"protocol":"tcp"}]`)
			w.Must(plugin.Add, ours)
			more := w.at(who{"more", "net2", "10.1.0.4"}, backend, `[{"hostPort":8082,"containerPort":80,"protocol":"tcp"}]`)
			w.reference(t, "ADD", more)
			w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
			w.Serve(w.neighbour, "tcp", "10.1.0.3:80")
			for addr, want := range map[string]string{"192.0.2.1:8080": "192.0.2.9", "192.0.2.1:8081": "192.0.2.9"} {
				if got := w.Ask(w.lan, "tcp", addr); got != want {
					t.Errorf("%s: seen as %q\n%s", addr, got, w.rules())
				}
			}
			bare := theirs
			bare.Netns, bare.Conf = nltest.NoNetns, `{"cniVersion":"1.0.0","name":"net1","type":"portmap"}`
			w.Must(plugin.Del, bare)
			if out := w.rules(); strings.Contains(out, "10.1.0.3") || !strings.Contains(out, "10.1.0.4") || !strings.Contains(out, "10.1.0.2") {
				t.Errorf("after DEL of one of the reference's:\n%s", out)
			}
			w.Must(plugin.Check, ours)
			w.reference(t, "DEL", more)
			w.Must(plugin.Check, ours)
			w.Must(plugin.Del, ours)
			if out := w.rules(); strings.Contains(out, "10.1.0") {
				t.Errorf("left behind:\n%s", out)
			}
			w.reference(t, "ADD", theirs)
			w.Must(plugin.Del, theirs) // with the result
			if out := w.rules(); strings.Contains(out, "10.1.0") || strings.Contains(out, "hostports") {
				t.Errorf("left behind:\n%s", out)
			}
		})
	}
}

// TestPortOfTheReference: a port that the reference has published is not published
// again, whichever backends do it, until its container's DEL or until a user has it
// forgotten. Ports that do not overlap are free.
func TestPortOfTheReference(t *testing.T) {
	for _, backends := range [][2]string{{"nftables", "nftables"}, {"nftables", "iptables"}, {"iptables", "nftables"}, {"iptables", "iptables"}} {
		theirs, ours := backends[0], backends[1]
		t.Run(theirs+" then "+ours, func(t *testing.T) {
			w := newTown(t)
			c := w.at(who{"theirs", "net1", "10.1.0.3"}, theirs, `[{"hostPort":8080,"containerPort":80,"protocol":"tcp"},{"hostPort":8081,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.1"}]`)
			w.reference(t, "ADD", c)
			v6 := call(strings.ReplaceAll(w.at(who{"six", "net1", "fd01::3"}, theirs, `[{"hostPort":8082,"containerPort":80,"protocol":"tcp"}]`).Conf, "::3/16", "::3/64"))
			v6.ContainerID = "six"
			w.reference(t, "ADD", v6)
			for mapping, taken := range map[string]string{
				tcp8080:               "theirs",
				many(100, 8000, 8000): "theirs",
				`[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"}]`: "theirs",
				`[{"hostPort":8081,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.1"}]`: "theirs",
				`[{"hostPort":8081,"containerPort":80,"protocol":"tcp"}]`:                      "theirs",
				`[{"hostPort":8081,"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"}]`: "",
				`[{"hostPort":8080,"containerPort":80,"protocol":"udp"}]`:                      "",
				`[{"hostPort":8082,"containerPort":80,"protocol":"tcp"}]`:                      "", // the container has no IPv6 address
			} {
				before := w.rules()
				next := w.at(who{"next", "net2", "10.1.0.4"}, ours, mapping)
				if taken == "" {
					w.Must(plugin.Add, next)
					w.Must(plugin.Del, next) // of what is shared with the reference something stays
					continue
				}
				if msg := w.Fails(plugin.Add, next, 101); !strings.Contains(msg, `already published by container "theirs"`) || !strings.Contains(msg, "netcleat forget ") {
					t.Errorf("%s: %s", mapping, msg)
				}
				if diff := cmp.Diff(before, w.rules()); diff != "" {
					t.Errorf("%s left behind (-before +after):\n%s", mapping, diff)
				}
			}
			both := call(conf(ours, strings.ReplaceAll(tcp8080, "8080", "8082")))
			if msg := w.Fails(plugin.Add, both, 101); !strings.Contains(msg, `already published by container "six"`) {
				t.Errorf("IPv6: %s", msg)
			}
			if err := portmap.Collect(t.Context(), nil, w.Journal(), journal.Key{Network: "net1", ContainerID: "six"}); err != nil { // as netcleat forget does
				t.Fatal(err)
			}
			w.Must(plugin.Add, both)
			next := w.at(who{"next", "net2", "10.1.0.4"}, ours, tcp8080)
			w.Fails(plugin.Add, next, 101)
			w.Must(plugin.Del, c)
			w.Must(plugin.Add, next)
		})
	}
}

// TestReplacesTheReference: with hostPortConflict a port leads to the last container
// that asks for it, also where the reference has published it.
func TestReplacesTheReference(t *testing.T) {
	w := newTown(t)
	w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
	w.reference(t, "ADD", w.at(who{"theirs", "net1", "10.1.0.3"}, "nftables", tcp8080))
	w.Must(plugin.Add, call(conf("nftables", tcp8080, `,"hostPortConflict":"replace"`)))
	if got := w.Ask(w.lan, "tcp", "192.0.2.1:8080"); got != "192.0.2.9" {
		t.Errorf("seen as %q\n%s", got, w.rules())
	}
}

// TestSender: one that never pauses reaches a restarted container in under a
// second, though nothing about its own packets changes.
func TestSender(t *testing.T) {
	w := newTown(t)
	udp := `[{"hostPort":5353,"containerPort":53,"protocol":"udp"}]`
	w.Must(plugin.Add, w.at(who{"old", "net1", "10.1.0.2"}, "", udp))
	w.Serve(w.Sandbox, "udp", "10.1.0.2:53")
	w.Serve(w.neighbour, "udp", "10.1.0.3:53")
	var c net.Conn
	w.In(w.lan, func() {
		var err error
		if c, err = net.Dial("udp", "192.0.2.1:5353"); err != nil {
			t.Fatal(err)
		}
	})
	defer c.Close()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				_, _ = c.Write([]byte("?"))
			}
		}
	}()
	answers := func() bool {
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, err := c.Read(make([]byte, 100))
		return err == nil
	}
	if !answers() {
		t.Fatal("no answer from the first container")
	}
	// It is gone without a DEL of its port: the address answers no more.
	w.In(w.Sandbox, func() { w.IP("link", "set", "eth0", "down") })
	w.Must(plugin.Del, w.at(who{"old", "net1", "10.1.0.2"}, "", udp))
	start := time.Now()
	w.Must(plugin.Add, w.at(who{"new", "net1", "10.1.0.3"}, "", udp))
	for time.Since(start) < 100*time.Millisecond {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, _ = c.Read(make([]byte, 100)) // what was under way
	}
	if !answers() {
		t.Errorf("no answer from the second container for %v\n%s", time.Since(start), w.Run("conntrack", "-L"))
	}
}

// TestConcurrent: 64 containers of several networks come and go at once.
func TestConcurrent(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			w := newTown(t)
			before := w.rules()
			do := func(verb string) {
				var wg sync.WaitGroup
				for i := range 64 {
					c := w.at(who{fmt.Sprintf("c%d", i), fmt.Sprintf("net%d", i%4), fmt.Sprintf("10.1.1.%d", i)}, backend, fmt.Sprintf(`[{"hostPort":%d,"containerPort":80,"protocol":"tcp"}]`, 8000+i))
					wg.Go(func() {
						w.In(w.Host, func() {
							if a := w.Do(verb, c); a.Exit != 0 {
								t.Errorf("%s %s: %s", verb, c.ContainerID, a.Stdout)
							}
						})
					})
				}
				wg.Wait()
			}
			do(plugin.Add)
			do(plugin.Check)
			do(plugin.Del)
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}
