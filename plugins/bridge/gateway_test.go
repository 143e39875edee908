package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// macOf returns a host link's MAC address, as the thread sees it.
func macOf(t *testing.T, name string) string {
	t.Helper()
	mac, err := nl.MACByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return mac.String()
}

// container makes a sandbox and returns its call.
func container(bed *nltest.Bed, id string, c nltest.Call) (*netns.NS, nltest.Call) {
	ns := bed.NewSandbox()
	c.ContainerID, c.Netns = id, bed.PathOf(ns)
	return ns, c
}

// A bridge that was there before has no port, or has the gateway's address already:
// it keeps its MAC address however the containers come and go.
func TestBridgeKeepsMAC(t *testing.T) {
	for name, prepare := range map[string]func(*nltest.Bed){
		"without an address":         func(*nltest.Bed) {},
		"with the gateway's address": func(b *nltest.Bed) { b.IP("addr", "add", "10.1.0.1/16", "dev", "br0") },
		"that has lost its ports": func(b *nltest.Bed) {
			b.IP("link", "add", "p0", "master", "br0", "type", "veth", "peer", "name", "p1")
			b.IP("link", "del", "p0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			bed := nltest.New(t)
			bed.IP("link", "add", "br0", "up", "type", "bridge")
			prepare(bed)
			calls := map[string]nltest.Call{}
			var middle *netns.NS
			var mac string
			for i, id := range []string{"a", "b", "c"} {
				stub := &nltest.StubIPAM{Addresses: []string{fmt.Sprintf("10.1.0.%d/16 10.1.0.1", i+2)}}
				ns, c := container(bed, id, call(stub, `"isGateway":true`))
				calls[id] = c
				before := macOf(t, "br0")
				bed.Must(plugin.Add, c)
				if id == "a" {
					mac = macOf(t, "br0")
					if before != "00:00:00:00:00:00" && mac != before {
						t.Errorf("the first container changes %s to %s", before, mac)
					}
				}
				if id == "b" {
					middle = ns
				}
			}
			bed.Must(plugin.Del, calls["a"])
			bed.Must(plugin.Del, calls["c"])
			if got := macOf(t, "br0"); got != mac {
				t.Errorf("br0 has %s, had %s", got, mac)
			}
			bed.Reaches(middle, "10.1.0.1")
		})
	}
}

// A bridge into the LAN keeps its MAC address and its MTU, whatever the containers
// have, also as the gateway.
func TestLANBridgeKeepsMACAndMTU(t *testing.T) {
	for _, keys := range []string{"", `"mtu":1400`, `"isGateway":true`} {
		bed := nltest.New(t)
		bed.IP("link", "add", "br0", "up", "type", "bridge")
		// As high as addresses of network cards are.
		bed.IP("link", "add", "up0", "mtu", "9000", "address", "f8:ff:ff:ff:ff:ff", "type", "veth", "peer", "name", "lan0", "mtu", "9000")
		bed.IP("link", "set", "up0", "up", "master", "br0")
		bed.IP("addr", "add", "10.1.0.1/16", "dev", "br0")
		for i := range 4 {
			_, c := container(bed, fmt.Sprintf("c%d", i), call(&nltest.StubIPAM{Addresses: []string{fmt.Sprintf("10.1.0.%d/16 10.1.0.1", i+2)}}, keys))
			res := bed.Must(plugin.Add, c)
			want := 9000
			if strings.Contains(keys, "mtu") {
				want = 1400
			}
			if got := res.Interfaces[atSandbox].Mtu; got != want {
				t.Errorf("%s: the container's MTU is %d, want %d", keys, got, want)
			}
			b, err := nl.BriefByName("br0")
			if err != nil || b.MAC.String() != "f8:ff:ff:ff:ff:ff" || b.MTU != 9000 {
				t.Errorf("%s: after container %d: %v, %v", keys, i, b, err)
			}
		}
		// The port to the LAN is another now, with another address: the bridge follows.
		bed.IP("link", "set", "up0", "address", "f8:ff:ff:ff:ff:fe")
		if got := macOf(t, "br0"); keys == "" && got != "f8:ff:ff:ff:ff:fe" {
			t.Errorf("the LAN bridge's address is fixed to %s", got)
		}
	}
}

// The host asks for its neighbours from its link-local address, which must be
// usable when ADD returns, on a bridge that is new and on one without ports.
func TestLinkLocalOfGateway(t *testing.T) {
	for name, prepare := range map[string]func(*nltest.Bed){
		"new": func(*nltest.Bed) {},
		// The kernel has just begun to look for duplicates of its address.
		"without ports": func(b *nltest.Bed) { b.IPBatch("link add br0 type bridge\nlink set br0 up") },
	} {
		t.Run(name, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			bed.Must(plugin.Add, call(&nltest.StubIPAM{Addresses: []string{"fd00:1::2/64 fd00:1::1"}}, `"isGateway":true`))
			if got := bed.IP("-6", "addr", "show", "dev", "br0", "scope", "link"); !strings.Contains(got, "fe80::") || strings.Contains(got, "tentative") {
				t.Error(got)
			}
		})
	}
}

// Gateways outside of the address's subnet: the host has a way back, CHECK misses
// it, and DEL takes that of a single address away.
func TestGatewayOutsideSubnet(t *testing.T) {
	for addr, stays := range map[string]bool{"fd00:1::2/64": true, "fd00:1::2/128": false} {
		t.Run(addr, func(t *testing.T) {
			bed := nltest.New(t)
			c := call(&nltest.StubIPAM{Addresses: []string{addr + " fe80::1"}}, `"isDefaultGateway":true`)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			c = with(c, `"prevResult":`+a.Stdout)
			bed.IP("addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
			bed.Reaches(bed.Sandbox, "2001:db8::1")
			bed.Must(plugin.Check, c)
			dst := netip.MustParsePrefix(addr).Masked().String()
			dst = strings.TrimSuffix(dst, "/128")
			bed.IP("-6", "route", "del", dst, "dev", "br0")
			bed.Fails(plugin.Check, c, cnierr.CheckFailed)
			bed.IP("-6", "route", "add", dst, "dev", "br0")
			bed.Must(plugin.Del, c)
			if got := bed.IP("-6", "route", "show", "dev", "br0"); strings.Contains(got, dst) != stays {
				t.Error(got)
			}
		})
	}
	stub := &nltest.StubIPAM{Addresses: []string{"fd00:1::2/128 fe80::1"}}
	nltest.NoTrace(t, call(stub, `"isGateway":true`), func(b *nltest.Bed) {
		_, first := container(b, "first", call(&nltest.StubIPAM{Addresses: []string{"fd00:1::9/128 fe80::1"}}, `"isGateway":true`))
		b.Must(plugin.Add, first)
		stub.Held = 0
	})
}

// A container is twice in one network, and the host has learnt that both
// addresses are at net1: after net1's DEL it sends to eth0 at once.
func TestSameNetworkTwice(t *testing.T) {
	bed := nltest.New(t)
	eth0 := call(&nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1"}}, `"isGateway":true`)
	bed.Must(plugin.Add, eth0)
	net1 := call(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16 10.1.0.1"}}, `"isGateway":true`)
	net1.IfName = "net1"
	bed.Must(plugin.Add, net1)
	of := func(ip string) string { return link.MACOf(netip.MustParseAddr(ip)).String() }
	bed.IP("neigh", "replace", "10.1.0.2", "lladdr", of("10.1.0.3"), "nud", "reachable", "dev", "br0")
	w, err := nl.NewWatch(bed.Host, unix.RTNLGRP_NEIGH)
	if err != nil {
		t.Fatal(err)
	}
	bed.Must(plugin.Del, net1)
	// Less than the kernel's own five seconds until it asks again.
	err = w.Until(time.Now().Add(3*time.Second), func() (bool, error) {
		return strings.Contains(bed.IP("neigh", "show", "10.1.0.2", "dev", "br0"), of("10.1.0.2")), nil
	})
	if err := errors.Join(err, w.Close()); err != nil {
		t.Errorf("%v: the host remembers %swant %s", err, bed.IP("neigh", "show", "dev", "br0"), of("10.1.0.2"))
	}
}

// Bridges of layer 2 may lead to one LAN: there the container's MAC address is the
// one that depends on the machine.
func TestMACOnLayer2(t *testing.T) {
	bed := nltest.New(t)
	res := bed.Must(plugin.Add, call(nil, ""))
	want := link.DerivedMAC(journal.Key{Network: "net", ContainerID: "c1", IfName: "eth0"}).String()
	if got := res.Interfaces[atSandbox].Mac; got != want {
		t.Errorf("MAC address %s, want %s", got, want)
	}
}
