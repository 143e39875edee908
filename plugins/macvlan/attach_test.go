package macvlan

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

var life = nltest.Life{
	Name: "macvlan", Plugin: Plugin, Keys: `"master":"up0"`, Layer2: true,
	Prepare: func(b *nltest.Bed) *netns.NS { return b.NewLAN("up0", "10.1.0.1/16", "fd00:1::1/64") },
	Reach:   reach,
}

// reach pings from the sandbox to the LAN and back.
func reach(b *nltest.Bed, lan *netns.NS, stub *nltest.StubIPAM) {
	for _, a := range stub.Addresses {
		addr, gw, _ := strings.Cut(a, " ")
		addr, _, _ = strings.Cut(addr, "/")
		b.Reaches(b.Sandbox, gw)
		b.Reaches(lan, addr)
	}
}

func TestLife(t *testing.T) { life.Test(t) }

// add attaches one more container, in a sandbox of its own.
func add(b *nltest.Bed, id, addr, keys string) *netns.NS {
	ns := b.NewSandbox()
	b.Must(plugin.Add, life.Call(&nltest.StubIPAM{Addresses: []string{addr}}, keys).As(id, b.PathOf(ns)))
	return ns
}

// pings reports whether a packet to addr comes back.
func pings(b *nltest.Bed, from *netns.NS, addr string) bool {
	return b.Pings(from, addr, time.Second)
}

// Who reaches whom is what the README says.
func TestReach(t *testing.T) {
	for mode, siblings := range map[string]bool{"bridge": true, "private": false, "vepa": false} {
		t.Run(mode, func(t *testing.T) {
			bed := nltest.New(t)
			lan := life.Prepare(bed)
			bed.IP("addr", "add", "10.1.0.9/16", "dev", "up0")
			a := add(bed, "a", "10.1.0.2/16", `"mode":"`+mode+`"`)
			b := add(bed, "b", "10.1.0.3/16", `"mode":"`+mode+`"`)
			for what, c := range map[string]struct {
				from *netns.NS
				to   string
				want bool
			}{
				"container to LAN":       {a, "10.1.0.1", true},
				"LAN to container":       {lan, "10.1.0.3", true},
				"container to container": {a, "10.1.0.3", siblings},
				"container to host":      {b, "10.1.0.9", false},
				"host to container":      {bed.Host, "10.1.0.2", false},
			} {
				if got := pings(bed, c.from, c.to); got != c.want {
					t.Errorf("%s: %v, want %v", what, got, c.want)
				}
			}
		})
	}
}

// A container in mode passthru is alone on its master and has its MAC address,
// or gives it another for as long as it lives.
func TestPassthru(t *testing.T) {
	bed := nltest.New(t)
	lan := life.Prepare(bed)
	macs := func() string { return bed.IP("-br", "link", "show", "up0") }
	before := macs()
	c := life.Call(nltest.DualStack(), `"mode":"passthru"`)
	a := bed.Do(plugin.Add, c)
	mac := strings.Fields(before)[2]
	if a.Exit != 0 || !strings.Contains(a.Stdout, mac) {
		t.Fatalf("MAC address is not %s: %s", mac, a.Stdout)
	}
	reach(bed, lan, nltest.DualStack())
	bed.Must(plugin.Check, c.With(`"prevResult":`+a.Stdout))
	second := c.As("c2", bed.PathOf(bed.NewSandbox()))
	if msg := bed.Fails(plugin.Add, second, cnierr.Internal); !strings.Contains(msg, "passthru is always alone") {
		t.Error(msg)
	}
	bed.Must(plugin.Del, c)

	c = c.With(`"mac":"02:00:00:00:00:77"`)
	if res := bed.Must(plugin.Add, c); res.Interfaces[0].Mac != "02:00:00:00:00:77" {
		t.Errorf("MAC address is %s", res.Interfaces[0].Mac)
	}
	reach(bed, lan, nltest.DualStack())
	bed.Must(plugin.Del, c)
	if after := macs(); after != before {
		t.Errorf("master was %q, is %q", before, after)
	}
}

// What the keys ask for is what the kernel has, and CHECK knows.
func TestKeys(t *testing.T) {
	for keys, want := range map[string]string{
		`"mode":"vepa"`:   "macvlan mode vepa",
		`"mtu":1280`:      "mtu 1280",
		`"mtu":0`:         "mtu 1500",
		`"bcqueuelen":77`: "bcqueuelen 77",
		`"runtimeConfig":{"mac":"02:00:00:00:00:77"}`: "link/ether 02:00:00:00:00:77",
	} {
		t.Run(keys, func(t *testing.T) {
			bed := nltest.New(t)
			life.Prepare(bed)
			c := life.Call(nltest.DualStack(), keys)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			if got := bed.SandboxIP("-d", "link", "show", "eth0"); !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
			bed.Must(plugin.Check, c.With(`"prevResult":`+a.Stdout))
			if bed.Must(plugin.Del, c); keys == `"mtu":0` {
				c = c.With(`"linkInContainer":false`)
				bed.Must(plugin.Add, c)
			}
		})
	}
}

// The MAC address for which nobody asked is the same each time, and not udev's
// to change.
func TestDerivedMAC(t *testing.T) {
	bed := nltest.New(t)
	life.Prepare(bed)
	c := life.Call(nltest.DualStack())
	first := bed.Must(plugin.Add, c).Interfaces[0].Mac
	bed.Must(plugin.Del, c)
	if again := bed.Must(plugin.Add, c).Interfaces[0].Mac; again != first {
		t.Errorf("MAC address %s became %s", first, again)
	}
}

// What the master cannot do is said with its name, the cause and what to do.
func TestPreflight(t *testing.T) {
	for what, c := range map[string]struct {
		prepare string // ip(8) commands on the host
		keys    string
		code    uint
		want    []string
	}{
		"missing":          {"", `"master":"none0"`, cnierr.InvalidConfig, []string{`master "none0"`, "no such interface on the host", "name one of"}},
		"port of a bridge": {"link add br0 type bridge;link set up0 master br0", "", cnierr.InvalidConfig, []string{`master "up0"`, "port of a bridge", "use that as master"}},
		"MTU":              {"", `"mtu":9000`, cnierr.InvalidConfig, []string{"invalid MTU 9000, must be [0, master MTU(1500)]", `"up0"`}},
		"loopback":         {"", `"master":"lo"`, cnierr.InvalidConfig, []string{`master "lo"`, "loopback"}},
		"no default route": {"", `"master":""`, cnierr.InvalidConfig, []string{"no default route interface found; on the host", "(master)"}},
		"in the sandbox":   {"", `"linkInContainer":true`, cnierr.InvalidConfig, []string{`master "up0"`, "in the sandbox"}},
		"none there":       {"", `"linkInContainer":true,"master":""`, cnierr.InvalidConfig, []string{"no default route interface found; in the sandbox"}},
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			life.Prepare(bed)
			for cmd := range strings.SplitSeq(c.prepare, ";") {
				if cmd != "" {
					bed.IP(strings.Fields(cmd)...)
				}
			}
			stub := nltest.DualStack()
			msg := bed.Fails(plugin.Add, life.Call(stub, c.keys), c.code)
			for _, w := range c.want {
				if !strings.Contains(msg, w) {
					t.Errorf("no %q in %q", w, msg)
				}
			}
			if stub.Held != 0 {
				t.Errorf("%d addresses held", stub.Held)
			}
		})
	}
}

// A master that is down does not refuse the container: people bring theirs up
// later. The caller is told, and then packets pass.
func TestMasterDown(t *testing.T) {
	for what, stub := range map[string]*nltest.StubIPAM{"dual stack": nltest.DualStack(), "layer 2": nil} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			lan := life.Prepare(bed)
			bed.IP("link", "set", "up0", "down")
			c := life.Call(stub)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 || !strings.Contains(a.Stderr, "ip link set up0 up") {
				t.Fatalf("exit %d: %s, and the note says %q", a.Exit, a.Stdout, a.Stderr)
			}
			bed.Must(plugin.Check, c.With(`"prevResult":`+a.Stdout))
			bed.IP("link", "set", "up0", "up")
			if stub != nil { // the neighbour's IPv6 address is tentative after the change of its carrier
				reach(bed, lan, &nltest.StubIPAM{Addresses: stub.Addresses[:1]})
			}
			bed.Must(plugin.Del, c)
		})
	}
}

// Without a master it is the interface of the default route, of whatever family,
// also where some of the world goes another way.
func TestMasterByDefaultRoute(t *testing.T) {
	for what, routes := range map[string]string{
		"IPv4":          "route add default via 10.1.0.1",
		"IPv6":          "-6 route add default via fd00:1::1",
		"VPN in halves": "route add default via 10.1.0.1;route add 128.0.0.0/1 dev vpn0;route add 0.0.0.0/1 dev vpn0",
		"by rule":       "route add default via 10.1.0.1;route add default dev vpn0 table 7;rule add to 240.0.0.0/4 table 7",
		"two":           "route add default dev vpn0 metric 200;route add default via 10.1.0.1 metric 100",
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			life.Prepare(bed)
			bed.IP("link", "add", "vpn0", "type", "veth", "peer", "name", "vpn1")
			bed.IP("link", "set", "vpn0", "up")
			bed.IP("link", "set", "vpn1", "up")
			bed.IP("addr", "add", "10.1.0.9/16", "dev", "up0")
			bed.IP("addr", "add", "fd00:1::9/64", "dev", "up0", "nodad")
			for cmd := range strings.SplitSeq(routes, ";") {
				bed.IP(strings.Fields(cmd)...)
			}
			c := life.Call(nltest.DualStack(), `"master":""`)
			bed.Must(plugin.Status, c)
			bed.Must(plugin.Add, c)
			if r, err := bed.Journal().Read(journal.Key{Network: "net", ContainerID: "c1", IfName: "eth0", Plugin: "macvlan"}); err != nil || r.Links[0].Parent != indexOf(bed, "up0") {
				t.Errorf("master is %+v, %v, want up0", r.Links, err)
			}
			bed.IP("route", "flush", "table", "main")
			bed.Must(plugin.Del, c)
		})
	}
}

func indexOf(b *nltest.Bed, name string) int {
	at, _, _ := strings.Cut(b.IP("-o", "link", "show", name), ":")
	n, _ := strconv.Atoi(at)
	return n
}

// A host interface of the same name is in nobody's way, whether the kernel looks
// for the name on the host (before 6.15) or not: the first request's refusal
// forces the old kernels' way.
func TestNameTakenOnHost(t *testing.T) {
	for what, gate := range map[string]gate.Gate{
		"this kernel": nil,
		"before 6.15": func(change string) error {
			if change == "create macvlan eth0" {
				return unix.EEXIST
			}
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			lan := life.Prepare(bed)
			bed.IP("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
			stub := nltest.DualStack()
			c := life.Call(stub)
			c.Gate = gate
			bed.Must(plugin.Add, c)
			reach(bed, lan, stub)
			bed.Must(plugin.Del, c)
			bed.IP("link", "show", "eth0")
			// Killed between creation and renaming:
			c.Gate = func(change string) error {
				if strings.HasPrefix(change, "rename") || strings.HasPrefix(change, "delete") {
					return unix.EIO
				}
				return gate.Pass(change)
			}
			if gate == nil {
				return
			}
			bed.Fails(plugin.Add, c, cnierr.Internal)
			if !strings.Contains(bed.SandboxIP("-br", "link"), "new") {
				t.Fatal("the fault leaves nothing to clean up")
			}
			c.Gate = nil
			bed.Must(plugin.Del, c)
			if links := bed.SandboxIP("-br", "link"); strings.Contains(links, "new") {
				t.Errorf("left behind:\n%s", links)
			}
		})
	}
}

// A neighbour that remembers the address's last owner is told at once: its first
// packet arrives.
func TestAnnounce(t *testing.T) {
	bed := nltest.New(t)
	lan := life.Prepare(bed)
	bed.In(lan, func() {
		for _, a := range []string{"10.1.0.2", "fd00:1::2"} {
			bed.IP("neigh", "replace", a, "lladdr", "02:de:ad:00:00:01", "dev", "lan0", "nud", "reachable")
		}
	})
	bed.Must(plugin.Add, life.Call(nltest.DualStack()))
	for _, a := range []string{"10.1.0.2", "fd00:1::2"} {
		start := time.Now()
		if !pings(bed, lan, a) {
			t.Errorf("first packet to %s is lost", a)
		}
		t.Logf("%s answered after %v", a, time.Since(start))
	}
}

// Duplicate address detection runs beside the container's first packets; CHECK
// tells what it found. With enabledad ADD waits for it, and fails.
func TestDuplicate(t *testing.T) {
	bed := nltest.New(t)
	lan := life.Prepare(bed)
	bed.In(lan, func() { bed.IP("addr", "add", "fd00:1::2/64", "dev", "lan0", "nodad") })
	c := life.Call(nltest.DualStack())
	a := bed.Do(plugin.Add, c)
	if a.Exit != 0 {
		t.Fatal(a.Stdout)
	}
	failed := func() bool { return strings.Contains(bed.SandboxIP("addr"), "dadfailed") }
	for end := time.Now().Add(5 * time.Second); !failed() && time.Now().Before(end); {
	}
	if msg := bed.Fails(plugin.Check, c.With(`"prevResult":`+a.Stdout), cnierr.CheckFailed); !strings.Contains(msg, "dadfailed") {
		t.Error(msg)
	}
	bed.Must(plugin.Del, c)
	stub := nltest.DualStack()
	c = life.Call(stub, `"enabledad":true`)
	if msg := bed.Fails(plugin.Add, c, cnierr.Internal); !strings.Contains(msg, "duplicate") || stub.Held != 0 {
		t.Errorf("%s, %d addresses held", msg, stub.Held)
	}
	bed.In(lan, func() { bed.IP("addr", "del", "fd00:1::2/64", "dev", "lan0") })
	bed.Must(plugin.Add, c)
	if addrs := bed.SandboxIP("-6", "addr"); strings.Contains(addrs, "tentative") {
		t.Errorf("ADD did not wait:\n%s", addrs)
	}
}

// The master may be in the sandbox, and is then also found by its default route.
func TestLinkInContainer(t *testing.T) {
	for _, keys := range []string{`"master":"in0"`, `"master":""`} {
		bed := nltest.New(t)
		life.Prepare(bed)
		bed.SandboxIP("link", "add", "in0", "type", "veth", "peer", "name", "in1")
		for _, l := range []string{"in0", "in1"} {
			bed.SandboxIP("link", "set", l, "up")
		}
		bed.SandboxIP("addr", "add", "10.2.0.2/16", "dev", "in0")
		bed.SandboxIP("route", "add", "default", "via", "10.2.0.1")
		c := life.Call(&nltest.StubIPAM{Addresses: []string{"10.1.0.2/16"}}, keys, `"linkInContainer":true`)
		a := bed.Do(plugin.Add, c)
		if a.Exit != 0 {
			t.Fatal(a.Stdout)
		}
		bed.Must(plugin.Check, c.With(`"prevResult":`+a.Stdout))
		bed.Must(plugin.Status, c)
		bed.Must(plugin.Del, c)
		bed.SandboxIP("link", "show", "in0")
	}
}

// A container without an IPv6 address has no IPv6 (CVE-2024-32473), unless
// routers are to be heard; one of layer 2 is left alone.
func TestIPv6(t *testing.T) {
	v4 := &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16"}}
	for what, c := range map[string]struct {
		call nltest.Call
		want string
	}{
		"IPv4 only":       {life.Call(v4), "1"},
		"with acceptRA":   {life.Call(v4, `"acceptRA":true`), "0"},
		"layer 2":         {life.Call(nil), "0"},
		"dual stack":      {life.Call(nltest.DualStack()), "0"},
		"ipam of no type": {life.Call(nil, `"ipam":{"type":""}`), "0"},
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			life.Prepare(bed)
			bed.Must(plugin.Add, c.call)
			bed.In(bed.Sandbox, func() {
				if got := strings.TrimSpace(bed.Run("sysctl", "-n", "net.ipv6.conf.eth0.disable_ipv6")); got != c.want {
					t.Errorf("disable_ipv6 is %s, want %s", got, c.want)
				}
				if got := strings.TrimSpace(bed.Run("sysctl", "-n", "net.ipv6.conf.eth0.accept_ra")); got != "1" {
					t.Errorf("accept_ra is %s", got)
				}
			})
		})
	}
}

// STATUS says no where an ADD cannot work, and yes where the master is merely
// down: kubelet would take the node out of service.
func TestStatus(t *testing.T) {
	bed := nltest.New(t)
	life.Prepare(bed)
	bed.Must(plugin.Status, life.Call(nil))
	bed.IP("link", "set", "up0", "down")
	bed.Must(plugin.Status, life.Call(nil))
	bed.Fails(plugin.Status, life.Call(nil, `"master":"none0"`), cnierr.NotAvailable)
	bed.Fails(plugin.Status, life.Call(nil, `"master":""`), cnierr.NotAvailable)
}

// DEL of what the reference made, which left no record, goes by what it
// reported.
func TestDetachWithoutRecord(t *testing.T) {
	bed := nltest.New(t)
	life.Prepare(bed)
	c := life.Call(nltest.DualStack())
	a := bed.Do(plugin.Add, c)
	bed.Run("rm", "-r", string(bed.Journal()))
	other := strings.Replace(a.Stdout, bed.Must(plugin.Add, c.As("c2", bed.PathOf(bed.NewSandbox()))).Interfaces[0].Mac, "", 1)
	if other != a.Stdout {
		t.Fatal("two containers have one MAC address")
	}
	foreign := strings.Replace(a.Stdout, `"mac": "`, `"mac": "02:00:00:00:00:00", "was": "`, 1)
	bed.Must(plugin.Del, c.With(`"prevResult":`+foreign))
	bed.SandboxIP("link", "show", "eth0")
	bed.Must(plugin.Del, c.With(`"prevResult":`+a.Stdout))
	if links := bed.SandboxIP("-br", "link"); strings.Contains(links, "eth0") {
		t.Errorf("left behind:\n%s", links)
	}
}
