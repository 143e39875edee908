package bridge

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// add attaches one more container with the addresses and returns its sandbox.
func add(b *nltest.Bed, id, keys string, addrs ...string) (nltest.Call, *netns.NS) {
	ns := b.NewSandbox()
	c := call(&nltest.StubIPAM{Addresses: addrs}, keys)
	c.ContainerID, c.Netns = id, b.PathOf(ns)
	b.Must(plugin.Add, c)
	return c, ns
}

// pingFrom sends one echo request and says whether it was answered within a
// second.
func pingFrom(b *nltest.Bed, ns *netns.NS, to string) (ok bool) {
	b.In(ns, func() { _, ok = b.Try("ping", "-c1", "-W1", to) })
	return ok
}

// A container that remembers the address's last owner reaches the new one at
// once, and so does the new one's first packet.
func TestAddressReuseAmongContainers(t *testing.T) {
	for _, addrs := range [][]string{{"10.1.0.2/16", "10.1.0.3/16"}, {"fd00:1::2/64", "fd00:1::3/64"}} {
		t.Run(addrs[1], func(t *testing.T) {
			bed := nltest.New(t)
			_, peer := add(bed, "peer", "", addrs[0])
			reused, _, _ := strings.Cut(addrs[1], "/")
			peers, _, _ := strings.Cut(addrs[0], "/")
			for i := range 5 {
				keys := ""
				if i > 2 { // a chosen one: the others have to be told
					keys = fmt.Sprintf(`"runtimeConfig":{"mac":"02:00:00:00:00:%02d"}`, i)
				}
				c, ns := add(bed, fmt.Sprint("c", i), keys, addrs[1])
				if !pingFrom(bed, peer, reused) {
					bed.In(peer, func() { t.Errorf("owner %d is not reached:\n%s", i, bed.IP("neigh")) })
				}
				if !pingFrom(bed, ns, peers) {
					t.Errorf("owner %d does not reach", i)
				}
				bed.Must(plugin.Del, c)
			}
		})
	}
}

// lan gives the host an uplink to another machine, which knows no way to the
// containers, and returns that machine's namespace.
func lan(b *nltest.Bed) *netns.NS {
	ns := b.NewSandbox()
	b.IP("link", "add", "up0", "type", "veth", "peer", "name", "lan0", "netns", b.PathOf(ns))
	b.IP("addr", "add", "192.0.2.1/24", "dev", "up0")
	b.IP("addr", "add", "2001:db8::1/64", "dev", "up0", "nodad")
	b.IP("link", "set", "up0", "up")
	b.In(ns, func() {
		b.IP("addr", "add", "192.0.2.9/24", "dev", "lan0")
		b.IP("addr", "add", "2001:db8::9/64", "dev", "lan0", "nodad")
		b.IP("link", "set", "lan0", "up")
	})
	for range 5 { // the kernel's workers have to see the uplink's carrier first
		if pingFrom(b, b.Host, "192.0.2.9") && pingFrom(b, b.Host, "2001:db8::9") {
			return ns
		}
	}
	b.In(ns, func() { _ = b.Run("false", "the other machine does not answer") })
	return ns
}

// seenBy sends a datagram from one namespace to an address in another and
// returns the sender's address as it arrives; "" is nothing within a second.
func seenBy(t *testing.T, b *nltest.Bed, from, at *netns.NS, to string) string {
	t.Helper()
	var l net.PacketConn
	var err error
	b.In(at, func() { l, err = net.ListenPacket("udp", net.JoinHostPort(to, "0")) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var c net.Conn
	b.In(from, func() { c, err = net.Dial("udp", l.LocalAddr().String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = l.SetReadDeadline(time.Now().Add(time.Second))
	_, sender, err := l.ReadFrom(make([]byte, 9))
	if err != nil {
		return ""
	}
	host, _, _ := net.SplitHostPort(sender.String())
	return host
}

// With ipMasq the world sees the host's address, and the network's members and
// the host see the container's.
func TestMasquerade(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			bed := nltest.New(t)
			world := lan(bed)
			keys := `"isDefaultGateway":true,"ipMasq":true,"ipMasqBackend":"` + backend + `"`
			c, a := add(bed, "a", keys, "10.1.0.2/16 10.1.0.1", "fd00:1::2/64 fd00:1::1")
			_, b := add(bed, "b", keys, "10.1.0.3/16 10.1.0.1", "fd00:1::3/64 fd00:1::1")
			for to, want := range map[string]struct {
				at   *netns.NS
				seen string
			}{
				"192.0.2.9":   {world, "192.0.2.1"},
				"2001:db8::9": {world, "2001:db8::1"},
				"10.1.0.3":    {b, "10.1.0.2"},
				"fd00:1::3":   {b, "fd00:1::2"},
				"10.1.0.1":    {bed.Host, "10.1.0.2"},
				"192.0.2.1":   {bed.Host, "10.1.0.2"},
			} {
				if got := seenBy(t, bed, a, want.at, to); got != want.seen {
					t.Errorf("%s sees %q, want %s", to, got, want.seen)
				}
			}
			if !pingFrom(bed, a, "192.0.2.9") {
				t.Error("no answer from the world")
			}
			bed.Must(plugin.Del, c)
			if got := seenBy(t, bed, b, world, "192.0.2.9"); got != "192.0.2.1" {
				t.Errorf("after the other's DEL the world sees %q", got)
			}
		})
	}
}

// Without ipMasq the world sees the container's address.
func TestNoMasquerade(t *testing.T) {
	bed := nltest.New(t)
	world := lan(bed)
	_, ns := add(bed, "a", `"isDefaultGateway":true`, "10.1.0.2/16 10.1.0.1")
	if got := seenBy(t, bed, ns, world, "192.0.2.9"); got != "10.1.0.2" {
		t.Errorf("the world sees %q", got)
	}
}

// A container whose port is checked reaches nobody with another's hardware
// address.
func TestSpoofedFramesAreDropped(t *testing.T) {
	for keys, want := range map[string]bool{`"macspoofchk":true`: false, `"macspoofchk":false`: true} {
		t.Run(keys, func(t *testing.T) {
			bed := nltest.New(t)
			_, ns := add(bed, "a", `"isGateway":true,`+keys, "10.1.0.2/16 10.1.0.1")
			if !pingFrom(bed, ns, "10.1.0.1") {
				t.Fatal("its own address does not pass")
			}
			bed.In(ns, func() { bed.IP("link", "set", "eth0", "address", "02:00:00:00:00:66") })
			if got := pingFrom(bed, ns, "10.1.0.1"); got != want {
				t.Errorf("with another address: answered %v, want %v", got, want)
			}
		})
	}
}

// Isolated ports reach the gateway and not each other.
func TestPortIsolation(t *testing.T) {
	for keys, want := range map[string]bool{`"portIsolation":true`: false, `"portIsolation":false`: true} {
		t.Run(keys, func(t *testing.T) {
			bed := nltest.New(t)
			_, a := add(bed, "a", `"isGateway":true,`+keys, "10.1.0.2/16 10.1.0.1")
			add(bed, "b", `"isGateway":true,`+keys, "10.1.0.3/16 10.1.0.1")
			if !pingFrom(bed, a, "10.1.0.1") {
				t.Error("the gateway does not answer")
			}
			if got := pingFrom(bed, a, "10.1.0.3"); got != want {
				t.Errorf("the other answers: %v, want %v", got, want)
			}
		})
	}
}

// With hairpin mode a frame may leave by the port that it came from.
func TestHairpin(t *testing.T) {
	for keys, want := range map[string]bool{`"hairpinMode":true`: true, `"hairpinMode":false`: false} {
		t.Run(keys, func(t *testing.T) {
			bed := nltest.New(t)
			_, ns := add(bed, "a", `"isGateway":true,`+keys, "10.1.0.2/16 10.1.0.1")
			// A second address behind the same port, reached only by way of the bridge.
			second := bed.NewSandbox()
			bed.In(ns, func() {
				bed.IP("link", "add", "inner", "link", "eth0", "netns", bed.PathOf(second), "type", "macvlan", "mode", "vepa")
				bed.IP("link", "set", "eth0", "promisc", "on")
			})
			bed.In(second, func() { bed.IP("addr", "add", "10.1.0.9/16", "dev", "inner"); bed.IP("link", "set", "inner", "up") })
			if !pingFrom(bed, second, "10.1.0.1") {
				t.Error("the gateway does not answer")
			}
			if got := pingFrom(bed, ns, "10.1.0.9"); got != want {
				t.Errorf("the neighbour on the same port answers: %v, want %v", got, want)
			}
		})
	}
}
