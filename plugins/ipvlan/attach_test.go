package ipvlan

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

var life = nltest.Life{
	Name: "ipvlan", Plugin: Plugin, Feature: "ipvlan", Keys: `"master":"up0"`, Layer2: true,
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
func add(b *nltest.Bed, id, addr, keys string) (nltest.Call, *netns.NS) {
	ns := b.NewSandbox()
	c := life.Call(&nltest.StubIPAM{Addresses: []string{addr}, Routes: []string{"192.0.2.0/24 10.1.0.1"}}, keys).As(id, b.PathOf(ns))
	b.Must(plugin.Add, c)
	return c, ns
}

// Who reaches whom is what the README says. In layer 3 the LAN needs a route to
// the containers: its router knows that they are behind the host.
func TestReach(t *testing.T) {
	life.Require(t)
	for keys, siblings := range map[string]bool{
		`"mode":"l2"`: true, `"mode":"l2","flag":"private"`: false, `"mode":"l2","flag":"vepa"`: false,
		`"mode":"l3"`: true, `"mode":"l3s"`: true,
	} {
		t.Run(keys, func(t *testing.T) {
			bed := nltest.New(t)
			lan := life.Prepare(bed)
			bed.IP("addr", "add", "10.1.0.9/16", "dev", "up0")
			mac := strings.Fields(bed.IP("-br", "link", "show", "up0"))[2]
			_, a := add(bed, "a", "10.1.0.2/16", keys)
			_, b := add(bed, "b", "10.1.0.3/16", keys)
			if strings.Contains(keys, "l3") { // which answers no ARP
				bed.In(lan, func() {
					for _, ip := range []string{"10.1.0.2", "10.1.0.3"} {
						bed.IP("neigh", "replace", ip, "lladdr", mac, "dev", "lan0", "nud", "permanent")
					}
				})
			}
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
				if ok := bed.Pings(c.from, c.to, 2*time.Second); ok != c.want {
					t.Errorf("%s: %v, want %v", what, ok, c.want)
				}
			}
		})
	}
}

// Mode and flag are the kernel's, and CHECK compares them.
func TestTraits(t *testing.T) {
	life.Require(t)
	for keys, want := range map[string]string{
		`"mode":"l3s"`:                                      "mode l3s bridge",
		`"mode":"l2","flag":"private"`:                      "mode l2 private",
		`"mode":"l3","flag":"vepa"`:                         "mode l3 vepa",
		`"mode":"l2","mtu":1280`:                            "mtu 1280",
		`"mode":"l2","ipam":{"type":""}`:                    "mode l2 bridge",
		`"mode":"l3","linkInContainer":true,"master":"in0"`: "mode l3 bridge",
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
			bed.Fails(plugin.Check, c.With(`"mode":"l2","flag":"vepa"`), cnierr.CheckFailed)
		})
	}
}

// The kernel has one mode and flag for a master: a second network that wants
// others is refused, and the first keeps its own. Its own VLAN has its own.
func TestModeOfTheMaster(t *testing.T) {
	life.Require(t)
	bed := nltest.New(t)
	life.Prepare(bed)
	add(bed, "a", "10.1.0.2/16", `"mode":"l2"`)
	other := life.Call(&nltest.StubIPAM{Addresses: []string{"10.2.0.2/16"}}, `"mode":"l3"`).As("b", bed.PathOf(bed.NewSandbox()))
	other.Conf = strings.Replace(other.Conf, `"net"`, `"other"`, 1)
	msg := bed.Fails(plugin.Add, other, cnierr.InvalidConfig)
	for _, want := range []string{`master "up0"`, `network "net"`, "mode l2 and flag bridge", "another master"} {
		if !strings.Contains(msg, want) {
			t.Errorf("no %q in %q", want, msg)
		}
	}
	other.Conf = strings.Replace(other.Conf, `"l3"`, `"l2"`, 1)
	bed.Must(plugin.Add, other)
}

// Nor does an ADD that has got no further than its record hide what master its
// network is on.
func TestModeBesideAnADD(t *testing.T) {
	life.Require(t)
	bed := nltest.New(t)
	life.Prepare(bed)
	add(bed, "a", "10.1.0.2/16", `"mode":"l2"`)
	for i := range 8 {
		e, err := bed.Journal().Open(t.Context(), journal.Key{Network: "net", ContainerID: fmt.Sprint("n", i), IfName: "eth0", Plugin: "ipvlan"})
		if err != nil {
			t.Fatal(err)
		}
		e.Config = []byte(`{"mode":"l2"}`)
		if err := e.Begin(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = e.Close() }()
	}
	other := life.Call(&nltest.StubIPAM{Addresses: []string{"10.2.0.2/16"}}, `"mode":"l3"`).As("b", bed.PathOf(bed.NewSandbox()))
	other.Conf = strings.Replace(other.Conf, `"net"`, `"other"`, 1)
	bed.Fails(plugin.Add, other, cnierr.InvalidConfig)
}

// Of two networks that want other modes of one master at once, one gets it.
func TestModesAtOnce(t *testing.T) {
	life.Require(t)
	bed := nltest.New(t)
	life.Prepare(bed)
	for round := range 20 {
		var exits [2]int
		var calls [2]nltest.Call
		for i, mode := range []string{"l2", "l3"} {
			stub := &nltest.StubIPAM{Addresses: []string{fmt.Sprintf("10.1.0.%d/16", 2+i)}}
			calls[i] = life.Call(stub, `"mode":"`+mode+`"`).As("c"+mode, bed.PathOf(bed.NewSandbox()))
			calls[i].Conf = strings.Replace(calls[i].Conf, `"net"`, `"net`+mode+`"`, 1)
		}
		var wg sync.WaitGroup
		for i, c := range calls {
			wg.Go(func() { bed.In(bed.Host, func() { exits[i] = bed.Do(plugin.Add, c).Exit }) })
		}
		wg.Wait()
		if (exits[0] == 0) == (exits[1] == 0) {
			t.Fatalf("round %d: exits %v", round, exits)
		}
		for _, c := range calls {
			bed.Must(plugin.Del, c)
		}
	}
}

// A master that macvlan uses is refused with the name of who does.
func TestRival(t *testing.T) {
	life.Require(t)
	bed := nltest.New(t)
	life.Prepare(bed)
	bed.IP("link", "add", "link", "up0", "name", "mv0", "type", "macvlan")
	if msg := bed.Fails(plugin.Add, life.Call(nil), cnierr.Internal); !strings.Contains(msg, `master "up0": in use by`) || !strings.Contains(msg, "VLAN sub-interface") {
		t.Error(msg)
	}
}

// A neighbour that remembers the address's last owner is told at once.
func TestAnnounce(t *testing.T) {
	life.Require(t)
	bed := nltest.New(t)
	lan := life.Prepare(bed)
	bed.In(lan, func() {
		for _, a := range []string{"10.1.0.2", "fd00:1::2"} {
			bed.IP("neigh", "replace", a, "lladdr", "02:de:ad:00:00:01", "dev", "lan0", "nud", "reachable")
		}
	})
	bed.Must(plugin.Add, life.Call(nltest.DualStack()))
	bed.Reaches(lan, "10.1.0.2", "fd00:1::2")
}

// Chained, it takes the previous plugin's interface for its master and its
// addresses for its own, and keeps the interface in the result.
func TestChained(t *testing.T) {
	life.Require(t)
	const prev = `"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"up0","mac":"02:00:00:00:00:01"}],"ips":[{"address":"10.1.0.2/16","gateway":"10.1.0.1"}],"routes":[{"dst":"0.0.0.0/0"}]}`
	bed := nltest.New(t)
	lan := life.Prepare(bed)
	c := life.Call(nil, prev)
	c.Conf = strings.Replace(c.Conf, `"master":"up0",`, "", 1)
	a := bed.Do(plugin.Add, c)
	if a.Exit != 0 {
		t.Fatal(a.Stdout)
	}
	bed.Reaches(lan, "10.1.0.2")
	r, err := current.NewResult([]byte(a.Stdout))
	if err != nil {
		t.Fatal(err)
	}
	res := r.(*current.Result)
	if len(res.Interfaces) != 2 || res.Interfaces[0].Name != "up0" || res.Interfaces[1].Name != "eth0" || *res.IPs[0].Interface != 1 {
		t.Errorf("result: %s", a.Stdout)
	}
	final := strings.Replace(c.Conf, prev, `"prevResult":`+a.Stdout, 1)
	checked := c
	checked.Conf = final
	bed.Must(plugin.Check, checked)
	bed.Must(plugin.Del, checked)
	if msg := bed.Fails(plugin.Add, checked, cnierr.InvalidConfig); !strings.Contains(msg, "chained master failure. PrevResult lacks a single named interface") {
		t.Error(msg)
	}
}

// An address that a sibling has is refused, and that one keeps it.
func TestDuplicateAddress(t *testing.T) {
	life.Require(t)
	bed := nltest.New(t)
	lan := life.Prepare(bed)
	add(bed, "a", "10.1.0.2/16", "")
	stub := &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16"}}
	msg := bed.Fails(plugin.Add, life.Call(stub), cnierr.Internal)
	if !strings.Contains(msg, "another interface on it has this address") || stub.Held != 0 {
		t.Errorf("%s, %d addresses held", msg, stub.Held)
	}
	bed.Reaches(lan, "10.1.0.2")
}
