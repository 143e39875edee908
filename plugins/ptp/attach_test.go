package ptp

import (
	"strings"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

var life = nltest.Life{
	Name: "ptp", Plugin: Plugin,
	Prepare: func(b *nltest.Bed) *netns.NS { return b.NewLAN("up0") },
	Reach:   reach,
}

// reach pings from the sandbox to the gateways and from the host back.
func reach(b *nltest.Bed, _ *netns.NS, stub *nltest.StubIPAM) {
	for _, a := range stub.Addresses {
		addr, gw, _ := strings.Cut(a, " ")
		addr, _, _ = strings.Cut(addr, "/")
		b.Reaches(b.Sandbox, gw)
		b.Reaches(b.Host, addr)
	}
}

func TestLife(t *testing.T) { life.Test(t) }

// One address may be given without a subnet, and the gateway be anywhere.
func TestAddresses(t *testing.T) {
	for what, stub := range map[string]*nltest.StubIPAM{
		"/32":                       {Addresses: []string{"10.1.0.2/32 10.9.0.1"}, Routes: []string{"0.0.0.0/0"}},
		"/128":                      {Addresses: []string{"fd00:1::2/128 fd00:9::1"}, Routes: []string{"::/0"}},
		"link-local gateway":        {Addresses: []string{"10.1.0.2/32 169.254.1.1", "fd00:1::2/128 fe80::1"}},
		"two of one subnet":         {Addresses: []string{"10.1.0.2/16 10.1.0.1", "10.1.0.3/16 10.1.0.1"}},
		"/31":                       {Addresses: []string{"10.1.0.2/31 10.1.0.3"}},
		"route by another of these": {Addresses: []string{"10.1.0.2/16 10.1.0.1"}, Routes: []string{"192.0.2.0/24 10.1.0.9"}},
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			c := life.Call(stub)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			if what != "link-local gateway" { // which ping wants a device for
				reach(bed, nil, stub)
			}
			bed.Must(plugin.Check, c.With(`"prevResult":`+a.Stdout))
			bed.Must(plugin.Del, c)
		})
	}
	for _, addr := range []string{"10.1.0.2/16", "fd00:1::2/64", "10.1.0.2/32", "10.1.0.2/16 10.1.0.2", "10.1.0.2/16 0.0.0.0"} {
		bed := nltest.New(t)
		stub := &nltest.StubIPAM{Addresses: []string{addr}}
		msg := bed.Fails(plugin.Add, life.Call(stub), cnierr.InvalidConfig)
		if !strings.Contains(msg, "gateway") || !strings.Contains(msg, "address 10.1.0.2") && !strings.Contains(msg, "address fd00:1::2") || stub.Held != 0 {
			t.Errorf("%s: %s, %d addresses held", addr, msg, stub.Held)
		}
	}
}

// The host asks for the container from its link-local address, which must be usable
// when ADD returns.
func TestLinkLocalOfHost(t *testing.T) {
	bed := nltest.New(t)
	res := bed.Must(plugin.Add, life.Call(&nltest.StubIPAM{Addresses: []string{"fd00:1::2/64 fd00:1::1"}}))
	got := bed.IP("-6", "addr", "show", "dev", res.Interfaces[0].Name, "scope", "link")
	if !strings.Contains(got, "fe80::") || strings.Contains(got, "tentative") {
		t.Error(got)
	}
}

// An address that another container has is refused, and that one keeps it.
func TestDuplicateAddress(t *testing.T) {
	for _, addr := range []string{"10.1.0.2/16 10.1.0.1", "fd00:1::2/64 fd00:1::1"} {
		bed := nltest.New(t)
		stub := &nltest.StubIPAM{Addresses: []string{addr}}
		bed.Must(plugin.Add, life.Call(stub))
		second := life.Call(&nltest.StubIPAM{Addresses: []string{addr}}).As("c2", bed.PathOf(bed.NewSandbox()))
		msg := bed.Fails(plugin.Add, second, cnierr.Internal)
		if !strings.Contains(msg, "is in use") || !strings.Contains(msg, "netcleat net c1 eth0") {
			t.Error(msg)
		}
		reach(bed, nil, stub)
	}
}

// Who reaches whom is what the README says.
func TestReach(t *testing.T) {
	bed := nltest.New(t)
	bed.NewLAN("up0", "192.0.2.1/24")
	bed.IP("addr", "add", "192.0.2.9/24", "dev", "up0")
	bed.Must(plugin.Add, life.Call(&nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1"}, Routes: []string{"0.0.0.0/0"}}, `"ipMasq":true,"ipMasqBackend":"nftables"`))
	other := bed.NewSandbox()
	plain := life.Call(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16 10.1.0.1"}, Routes: []string{"0.0.0.0/0"}}).As("c2", bed.PathOf(other))
	bed.Must(plugin.Add, plain)
	for what, c := range map[string]struct {
		from *netns.NS
		to   string
		want bool
	}{
		"container to host":                       {bed.Sandbox, "192.0.2.9", true},
		"container to container":                  {bed.Sandbox, "10.1.0.3", true},
		"host to container":                       {bed.Host, "10.1.0.3", true},
		"container to LAN with ipMasq":            {bed.Sandbox, "192.0.2.1", true},
		"container to LAN, which knows no return": {other, "192.0.2.1", false},
	} {
		if ok := bed.Pings(c.from, c.to, time.Second); ok != c.want {
			t.Errorf("%s: %v, want %v", what, ok, c.want)
		}
	}
}

// The rules for masquerading go with their container, whatever DEL is told, and
// CHECK misses them.
func TestMasquerade(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			bed := nltest.New(t)
			c := life.Call(nltest.DualStack(), `"ipMasq":true,"ipMasqBackend":"`+backend+`"`)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			checked := c.With(`"prevResult":` + a.Stdout)
			bed.Must(plugin.Check, checked)
			if rules := bed.Run("nft", "list", "ruleset"); !strings.Contains(strings.ToLower(rules), "masquerade") {
				t.Errorf("no rules:\n%s", rules)
			}
			bed.Run("nft", "flush", "ruleset")
			bed.Fails(plugin.Check, checked, cnierr.CheckFailed)
			bed.Must(plugin.Del, c)
			bed.Must(plugin.Add, c)
			c.Netns = nltest.NoNetns
			bed.Must(plugin.Del, c)
			if rules := bed.Run("nft", "list", "ruleset"); strings.Contains(rules, "10.1.0.") {
				t.Errorf("left behind:\n%s", rules)
			}
		})
	}
}

// The host's end is deaf to the container's router advertisements, and without
// an IPv6 address to all of its IPv6, before it is up.
func TestHostSysctls(t *testing.T) {
	for family, want := range map[string]string{"v4": "disable_ipv6=1", "dual": "accept_ra=0", "v6": "accept_ra=0"} {
		bed := nltest.New(t)
		up, set := 0, 0
		c := life.Call(nltest.Families()[family])
		seen := 0
		c.Gate = func(change string) error {
			seen++
			if strings.HasPrefix(change, "bring up veth") {
				up = seen
			}
			if strings.Contains(change, "/veth") && strings.HasSuffix(change, want) {
				set = seen
			}
			return nil
		}
		bed.Must(plugin.Add, c)
		if set == 0 || up < set {
			t.Errorf("%s: %s at %d, up at %d", family, want, set, up)
		}
	}
}

// What the keys ask for is what the kernel has.
func TestKeys(t *testing.T) {
	for keys, want := range map[string]string{
		`"mtu":1280`:                "mtu 1280",
		`"mac":"02:00:00:00:00:70"`: "link/ether 02:00:00:00:00:70",
		`"mac":"02:00:00:00:00:70","args":{"cni":{"mac":"02:00:00:00:00:71"}}`: "link/ether 02:00:00:00:00:71",
		`"runtimeConfig":{"mac":"02:00:00:00:00:77"}`:                          "link/ether 02:00:00:00:00:77",
	} {
		bed := nltest.New(t)
		c := life.Call(nltest.DualStack(), keys)
		a := bed.Do(plugin.Add, c)
		if a.Exit != 0 {
			t.Fatal(a.Stdout)
		}
		if got := bed.SandboxIP("-d", "link", "show", "eth0"); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
		bed.Must(plugin.Check, c.With(`"prevResult":`+a.Stdout))
		bed.Must(plugin.Del, c)
	}
}

// CHECK sees what is no longer so.
func TestCheck(t *testing.T) {
	for what, breakIt := range map[string]func(*nltest.Bed, string){
		"host end down":    func(b *nltest.Bed, veth string) { b.IP("link", "set", veth, "down") },
		"host route gone":  func(b *nltest.Bed, _ string) { b.IP("route", "del", "10.1.0.2/32") },
		"address gone":     func(b *nltest.Bed, _ string) { b.SandboxIP("addr", "del", "10.1.0.2/16", "dev", "eth0") },
		"interface down":   func(b *nltest.Bed, _ string) { b.SandboxIP("link", "set", "eth0", "down") },
		"default route":    func(b *nltest.Bed, _ string) { b.SandboxIP("route", "del", "default") },
		"other MAC":        func(b *nltest.Bed, _ string) { b.SandboxIP("link", "set", "eth0", "address", "02:00:00:00:00:99") },
		"interface absent": func(b *nltest.Bed, veth string) { b.IP("link", "del", veth) },
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			c := life.Call(nltest.DualStack())
			a := bed.Do(plugin.Add, c)
			res, err := current.NewResult([]byte(a.Stdout))
			if err != nil {
				t.Fatal(a.Stdout)
			}
			breakIt(bed, res.(*current.Result).Interfaces[0].Name)
			bed.Fails(plugin.Check, c.With(`"prevResult":`+a.Stdout), cnierr.CheckFailed)
		})
	}
}
