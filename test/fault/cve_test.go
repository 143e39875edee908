package fault

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/bridge"
	hostlocal "github.com/netcleat/netcleat/plugins/hostlocal-ipam"
	"github.com/netcleat/netcleat/plugins/macvlan"
	"github.com/netcleat/netcleat/plugins/portmap"
	"github.com/netcleat/netcleat/plugins/ptp"
	"github.com/netcleat/netcleat/plugins/tuning"
)

// Each defect that a CNI plugin or a container engine once had, by its name. A
// test that shows that something does not happen first or last shows that it
// would be seen.

// town is a host that routes between a LAN, a far machine and a bridge with two
// containers. Port 8080 of the host is published by the bed's sandbox.
type town struct {
	*nltest.Bed
	lan, far, neighbour *netns.NS
	publish             nltest.Call
	t                   *testing.T
}

func newTown(t *testing.T, backend string) *town {
	t.Helper()
	w := &town{Bed: nltest.New(t), t: t}
	w.lan, w.far, w.neighbour = w.NewSandbox(), w.NewSandbox(), w.NewSandbox()
	w.Forward()
	w.Bridge("br0", "10.1.0.1/16")
	w.Plug(w.Sandbox, "veth0", "br0", "10.1.0.2/16")
	w.Plug(w.neighbour, "veth1", "br0", "10.1.0.3/16")
	w.Plug(w.lan, "vlan0", "", "192.0.2.9/24")
	w.Plug(w.far, "far0", "", "198.51.100.9/24")
	w.Addr("vlan0", "192.0.2.1/24")
	w.Addr("far0", "198.51.100.1/24")
	for ns, via := range map[*netns.NS]string{w.Sandbox: "10.1.0.1", w.neighbour: "10.1.0.1", w.lan: "192.0.2.1", w.far: "198.51.100.1"} {
		w.In(ns, func() { w.IP("route", "add", "default", "via", via) })
	}
	w.publish = nltest.Call{Table: plugin.Table{"portmap": portmap.Plugin}, Plugin: "portmap", Conf: `{"cniVersion":"1.0.0","name":"net","type":"portmap","backend":"` + backend + `",
		"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},
		"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.1.0.2/16","gateway":"10.1.0.1"}]}}`}
	return w
}

// eachBackend runs the test with both of portmap's backends.
func eachBackend(t *testing.T, test func(w *town)) {
	t.Helper()
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) { test(newTown(t, backend)) })
	}
}

// Connections that pass through the host to a published port's number elsewhere
// are not the container's.
func TestCVE_2025_67499(t *testing.T) {
	eachBackend(t, func(w *town) {
		t := w.t
		w.Must(plugin.Add, w.publish)
		w.Serve(w.far, "tcp", "198.51.100.9:8080")
		if got := w.Ask(w.lan, "tcp", "198.51.100.9:8080"); got != "192.0.2.9" {
			t.Errorf("transit is captured: answer %q", got)
		}
		w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
		if w.Ask(w.lan, "tcp", "192.0.2.1:8080") == "" {
			t.Error("the published port does not answer")
		}
	})
}

// Rules that were there first, as kube-proxy's, decide before portmap's.
func TestCVE_2019_9946(t *testing.T) {
	eachBackend(t, func(w *town) {
		t := w.t
		for _, rule := range []string{"-N KUBE-SERVICES", "-A KUBE-SERVICES -d 192.0.2.1 -p tcp --dport 8080 -j DNAT --to 10.1.0.3:80", "-A PREROUTING -j KUBE-SERVICES"} {
			w.Run("iptables", append([]string{"-t", "nat"}, strings.Fields(rule)...)...)
		}
		w.Must(plugin.Add, w.publish)
		w.Serve(w.neighbour, "tcp", "10.1.0.3:80")
		if w.Ask(w.lan, "tcp", "192.0.2.1:8080") == "" {
			t.Error("the service's port goes to the container")
		}
	})
}

// The route_localnet that publishing on 127.0.0.1 takes is the bridge's alone,
// and comes with a drop of what others send with such an address.
func TestCVE_2020_8558(t *testing.T) {
	eachBackend(t, func(w *town) {
		t := w.t
		w.Must(plugin.Add, w.publish)
		w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
		if w.Ask(w.Host, "tcp", "127.0.0.1:8080") == "" {
			t.Fatal("127.0.0.1:8080 does not answer")
		}
		on := w.Run("sh", "-c", "grep -l 1 /proc/sys/net/ipv4/conf/*/route_localnet")
		if on != "/proc/sys/net/ipv4/conf/br0/route_localnet\n" {
			t.Errorf("route_localnet is on for %s", on)
		}
		rules := w.Run("nft", "list", "ruleset")
		for _, side := range []string{"saddr", "daddr"} {
			guard := regexp.MustCompile(`(iifname|iif|fib)[^\n]*ip ` + side + ` 127\.0\.0\.0/8[^\n]*drop`)
			if !guard.MatchString(rules) {
				t.Errorf("nothing drops what comes from outside with a %s of 127.0.0.0/8:\n%s", side, rules)
			}
		}
	})
}

// Rules that a firewall's reload took away are missed by CHECK.
func TestCVE_2025_54388(t *testing.T) {
	eachBackend(t, func(w *town) {
		w.Must(plugin.Add, w.publish)
		w.Must(plugin.Check, w.publish)
		w.Run("nft", "flush", "ruleset")
		w.Fails(plugin.Check, w.publish, cnierr.CheckFailed)
	})
}

// A container that says that it is a router does not become the host's.
func TestCVE_2020_10749(t *testing.T) {
	w := nltest.New(t)
	stub := &nltest.StubIPAM{Addresses: []string{"fd00:1::2/64"}}
	w.Must(plugin.Add, nltest.Call{
		Table: plugin.Table{"bridge": bridge.Plugin, "stub": stub.Plugin()}, Plugin: "bridge",
		Conf: `{"cniVersion":"1.0.0","name":"net","type":"bridge","bridge":"br0","ipam":{"type":"stub"}}`,
	})
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/br0/forwarding", []byte("0"), 0o644))
	routed := func() bool {
		for range 20 {
			w.In(w.Sandbox, func() { advertise(t) })
			if strings.Contains(w.IP("-6", "route", "show", "default"), "dev br0") {
				return true
			}
			<-time.After(20 * time.Millisecond)
		}
		return false
	}
	if routed() {
		t.Error("the host takes the container for its router")
	}
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/br0/accept_ra", []byte("2"), 0o644))
	if !routed() {
		t.Error("with accept_ra the host does not either: the test sees nothing")
	}
}

// advertise sends a router advertisement out of eth0.
func advertise(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	must(t, err)
	defer unix.Close(fd)
	link, err := net.InterfaceByName("eth0")
	must(t, err)
	must(t, errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, link.Index),
	))
	ra := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0} // a router for 1800 s
	to := &unix.SockaddrInet6{ZoneId: uint32(link.Index)}
	copy(to.Addr[:], net.ParseIP("ff02::1"))
	if err := unix.Sendto(fd, ra, 0, to); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) { // no address yet
		t.Fatal(err)
	}
}

// A container that was given no IPv6 address has none.
func TestCVE_2024_32473(t *testing.T) {
	for name, c := range map[string]struct {
		plugin plugin.Plugin
		keys   string
	}{
		"bridge":  {bridge.Plugin, `"bridge":"br0"`},
		"macvlan": {macvlan.Plugin, `"master":"up0"`},
		"ptp":     {ptp.Plugin, `"ipMasq":false`},
	} {
		t.Run(name, func(t *testing.T) {
			w := nltest.New(t)
			w.NewLAN("up0", "10.1.0.1/16", "fd00:1::1/64")
			stub := &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1"}}
			w.Must(plugin.Add, nltest.Call{
				Table: plugin.Table{name: c.plugin, "stub": stub.Plugin()}, Plugin: name,
				Conf: `{"cniVersion":"1.0.0","name":"net","type":"` + name + `",` + c.keys + `,"ipam":{"type":"stub"}}`,
			})
			if got := w.SandboxIP("-6", "-o", "addr", "show", "dev", "eth0"); got != "" {
				t.Errorf("IPv6 is on: %s", got)
			}
		})
	}
}

// No name leads out of the directory that it is looked up in.
func TestCVE_2021_20206(t *testing.T) {
	w := nltest.New(t)
	w.Bridge("br0") // stays
	out := filepath.Join(w.Dir, "ran")
	evil := filepath.Join(w.Dir, "evil")
	must(t, os.WriteFile(evil, []byte("#!/bin/sh\ntouch "+out+"\n"), 0o755))
	up := strings.Repeat("../", 20)
	table := plugin.Table{"bridge": bridge.Plugin, "host-local": hostlocal.Plugin}
	with := func(name, ipam string) nltest.Call {
		return nltest.Call{Table: table, Plugin: "bridge", Conf: `{"cniVersion":"1.1.0","name":"` + name + `","type":"bridge","bridge":"br0","ipam":{"type":"` + ipam + `","dataDir":"DATADIR/leases","subnet":"10.1.0.0/24"}}`}
	}
	id, ifname := with("net", "host-local"), with("net", "host-local")
	id.ContainerID, ifname.IfName = "../../evil", "../evil"
	for what, c := range map[string]nltest.Call{
		"type": with("net", up+evil), "absolute type": with("net", evil), "network": with("../../evil", "host-local"), "dots": with("..", "host-local"),
		"container ID": id, "interface": ifname,
	} {
		before := w.Snapshot()
		for _, verb := range []string{plugin.Add, plugin.Check, plugin.Del, plugin.GC} {
			if verb == plugin.GC {
				c = c.With(`"cni.dev/valid-attachments":[]`)
			}
			a := w.Do(verb, c)
			if verb == plugin.Add && a.Exit == 0 {
				t.Errorf("%s: taken", what)
			}
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%s: a file outside CNI_PATH was executed", what)
		}
		if after := w.Snapshot(); strings.Count(after, "\n") != strings.Count(before, "\n") {
			t.Errorf("%s: left\n%s", what, after)
		}
	}
}

// A sysctl's name or value does not carry another one, nor lead out of net.
func TestCVE_2022_0811(t *testing.T) {
	const target = "/proc/sys/kernel/core_pattern"
	before, err := os.ReadFile(target)
	must(t, err)
	for _, sysctl := range []string{
		`"net.ipv4.ip_default_ttl":"64+kernel.core_pattern=|/evil"`,
		`"net.ipv4.ip_default_ttl":"64\nkernel.core_pattern=|/evil"`,
		`"kernel.core_pattern":"|/evil"`,
		`"kernel.shm_rmid_forced":"1+kernel.core_pattern=|/evil"`,
		`"net/../kernel/core_pattern":"|/evil"`,
		`"net.ipv4.conf.../../../kernel/core_pattern":"|/evil"`,
		`"net.ipv4.conf.IFNAME/../../../../kernel/core_pattern":"|/evil"`,
	} {
		w := nltest.New(t)
		w.SandboxIP("link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
		a := w.Do(plugin.Add, tuned(`"sysctl":{`+sysctl+`}`))
		if a.Exit == 0 {
			t.Errorf("%s: taken", sysctl)
		}
	}
	if after, err := os.ReadFile(target); err != nil || string(after) != string(before) {
		t.Errorf("core_pattern is %q", after)
		must(t, os.WriteFile(target, before, 0o644))
	}
}

func tuned(keys string) nltest.Call {
	return nltest.Call{Table: plugin.Table{"tuning": tuning.Plugin}, Plugin: "tuning", Conf: `{"cniVersion":"1.0.0","name":"net","type":"tuning","dataDir":"DATADIR/tuning",` + keys + `,
		"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/run/netns/x"}]}}`}
}

// A pod in the host's namespace sets no sysctl there.
func TestCVE_2022_0532(t *testing.T) {
	w := nltest.New(t)
	w.IP("link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
	c := tuned(`"sysctl":{"net.ipv4.ip_forward":"1"}`)
	c.Netns, c.Override = w.PathOf(w.Host), true
	w.Fails(plugin.Add, c, cnierr.InvalidNetns)
	if v, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err != nil || string(v) != "0\n" {
		t.Errorf("the host's ip_forward is %q %v", v, err)
	}
}
