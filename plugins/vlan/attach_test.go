package vlan

import (
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// life is an attachment in VLAN 7, which the LAN's router is in, too.
var life = nltest.Life{
	Name: "vlan", Plugin: Plugin, Feature: "vlan", Keys: `"master":"up0","vlanId":7`, Layer2: true,
	Prepare: func(b *nltest.Bed) *netns.NS {
		lan := b.NewLAN("up0")
		b.In(lan, func() {
			b.IPBatch(`
				link add link lan0 name lan0.7 up type vlan id 7
				addr add 10.1.0.1/16 dev lan0.7
				addr add fd00:1::1/64 dev lan0.7 nodad`)
		})
		return lan
	},
	Reach: reach,
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

// What the keys ask for is what the kernel has, and CHECK knows.
func TestKeys(t *testing.T) {
	life.Require(t)
	for keys, want := range map[string]string{
		`"vlanId":0`:                            "protocol 802.1Q id 0",
		`"vlanId":4094`:                         "protocol 802.1Q id 4094",
		`"mtu":1280`:                            "mtu 1280",
		`"mtu":0`:                               "mtu 1500",
		`"master":"in0","linkInContainer":true`: "vlan protocol 802.1Q id 7",
	} {
		t.Run(keys, func(t *testing.T) {
			bed := nltest.New(t)
			life.Prepare(bed)
			bed.SandboxIP("link", "add", "in0", "type", "veth", "peer", "name", "in1")
			bed.SandboxIP("link", "set", "in0", "up")
			c := life.Call(nil, keys)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			if got := bed.SandboxIP("-d", "link", "show", "eth0"); !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
			c = c.With(`"prevResult":` + a.Stdout)
			bed.Must(plugin.Check, c)
			bed.Fails(plugin.Check, c.With(`"vlanId":9`), cnierr.CheckFailed)
			bed.Fails(plugin.Check, c.With(`"mtu":1300`), cnierr.CheckFailed)
		})
	}
}

// A VLAN can have one interface on a master: the second is told so.
func TestTakenID(t *testing.T) {
	life.Require(t)
	bed := nltest.New(t)
	lan := life.Prepare(bed)
	stub := nltest.DualStack()
	bed.Must(plugin.Add, life.Call(stub))
	second := life.Call(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16"}}).As("c2", bed.PathOf(bed.NewSandbox()))
	msg := bed.Fails(plugin.Add, second, cnierr.Internal)
	if !strings.Contains(msg, `master "up0"`) || !strings.Contains(msg, "has an interface with this VLAN ID already") {
		t.Error(msg)
	}
	reach(bed, lan, stub)
}

// Who is in another VLAN is not reached, nor is the host.
func TestReach(t *testing.T) {
	life.Require(t)
	bed := nltest.New(t)
	life.Prepare(bed)
	bed.IP("addr", "add", "10.1.0.9/16", "dev", "up0")
	other := bed.NewSandbox()
	c := life.Call(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16"}}, `"vlanId":8`).As("c2", bed.PathOf(other))
	bed.Must(plugin.Add, c)
	bed.Must(plugin.Add, life.Call(&nltest.StubIPAM{Addresses: []string{"10.1.0.2/16"}}))
	for addr, want := range map[string]bool{"10.1.0.1": true, "10.1.0.3": false, "10.1.0.9": false} {
		if ok := bed.Pings(bed.Sandbox, addr, time.Second); ok != want {
			t.Errorf("%s: %v, want %v", addr, ok, want)
		}
	}
}

// A master that is a port of a bridge serves: the kernel takes the VLAN's frames
// off before the bridge gets them. One that is down does not.
func TestMaster(t *testing.T) {
	life.Require(t)
	bed := nltest.New(t)
	lan := life.Prepare(bed)
	bed.IP("link", "add", "br0", "type", "bridge")
	bed.IP("link", "set", "up0", "master", "br0")
	stub := nltest.DualStack()
	bed.Must(plugin.Add, life.Call(stub))
	reach(bed, lan, stub)
	bed.Must(plugin.Del, life.Call(stub))
	bed.IP("link", "set", "up0", "down")
	bed.Fails(plugin.Add, life.Call(stub), cnierr.TryAgain)
}

// A neighbour that remembers the address's last owner is told at once.
func TestAnnounce(t *testing.T) {
	life.Require(t)
	bed := nltest.New(t)
	lan := life.Prepare(bed)
	bed.In(lan, func() {
		for _, a := range []string{"10.1.0.2", "fd00:1::2"} {
			bed.IP("neigh", "replace", a, "lladdr", "02:de:ad:00:00:01", "dev", "lan0.7", "nud", "reachable")
		}
	})
	bed.Must(plugin.Add, life.Call(nltest.DualStack()))
	bed.Reaches(lan, "10.1.0.2", "fd00:1::2")
}
