package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

func table(stub *nltest.StubIPAM) plugin.Table {
	return plugin.Table{"bridge": Plugin, "stub": stub.Plugin(), "host-local": stub.Plugin()}
}

// handsOut has the configuration say what the stub hands out, as host-local's does.
func handsOut(c nltest.Call) nltest.Call {
	c.Conf = strings.Replace(c.Conf, `{"type":"stub"}`, `{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/16"}],[{"subnet":"fd00:1::/64"}]]}`, 1)
	return c
}

const dual = `{"cniVersion":"1.1.0","name":"net","type":"bridge","bridge":"br0","isDefaultGateway":true,"hairpinMode":true,"ipMasq":true,"macspoofchk":true,"ipam":{"type":"stub"}}`

func dualStack() *nltest.StubIPAM {
	return &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1", "fd00:1::2/64 fd00:1::1"}}
}

func call(stub *nltest.StubIPAM, keys string) nltest.Call {
	conf := `{"cniVersion":"1.1.0","name":"net","type":"bridge","bridge":"br0"`
	if keys != "" {
		conf += "," + keys
	}
	if stub != nil {
		return nltest.Call{Table: table(stub), Plugin: "bridge", Conf: conf + `,"ipam":{"type":"stub"}}`}
	}
	return nltest.Call{Table: table(&nltest.StubIPAM{}), Plugin: "bridge", Conf: conf + "}"}
}

// with adds keys to the configuration of c.
func with(c nltest.Call, keys string) nltest.Call {
	c.Conf = strings.TrimSuffix(c.Conf, "}") + "," + keys + "}"
	return c
}

// Whatever change the kernel refuses, a failed ADD leaves both namespaces, the
// journal and the IPAM plugin's books as they were.
func TestAttachLeavesNoTrace(t *testing.T) {
	stub := dualStack()
	c := nltest.Call{Table: table(stub), Plugin: "bridge", Conf: dual}
	nltest.NoTrace(t, c, func(b *nltest.Bed) {
		// What is shared stays: it is there before.
		first := c
		first.ContainerID, first.Netns = "other", b.PathOf(b.NewSandbox())
		b.Must(plugin.Add, first)
		if stub.Held > 1 {
			t.Errorf("%d addresses held by failed ADDs", stub.Held-1)
		}
		stub.Held = 0
	})
}

// A first ADD that fails leaves the shared bridge, and nothing else.
func TestFirstAttachLeavesTheBridgeAlone(t *testing.T) {
	bed := nltest.New(t)
	stub := dualStack()
	stub.Err = errors.New("no addresses")
	bed.Fails(plugin.Add, call(stub, ""), cnierr.Internal)
	if links := bed.IP("-br", "link"); strings.Contains(links, "veth") {
		t.Errorf("left behind:\n%s", links)
	}
	if links := bed.SandboxIP("-br", "link"); strings.Contains(links, "eth0") {
		t.Errorf("left behind in the sandbox:\n%s", links)
	}
}

// The life of an attachment, in every version of the specification and with
// every choice of families.
func TestLifecycle(t *testing.T) {
	families := map[string]*nltest.StubIPAM{
		"v4":   {Addresses: []string{"10.1.0.2/16 10.1.0.1"}, Routes: []string{"0.0.0.0/0"}},
		"v6":   {Addresses: []string{"fd00:1::2/64 fd00:1::1"}, Routes: []string{"::/0"}},
		"dual": {Addresses: []string{"10.1.0.2/16 10.1.0.1", "fd00:1::2/64 fd00:1::1"}, Routes: []string{"0.0.0.0/0", "192.0.2.0/24 10.1.0.9"}},
	}
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for family, stub := range families {
			t.Run(version+" "+family, func(t *testing.T) {
				bed := nltest.New(t)
				c := call(stub, `"isGateway":true,"mtu":1400`)
				c.Conf = strings.Replace(c.Conf, "1.1.0", version, 1)
				lifecycle(t, bed, c, stub)
			})
		}
	}
}

func lifecycle(t *testing.T, bed *nltest.Bed, c nltest.Call, stub *nltest.StubIPAM) {
	t.Helper()
	version := versionIn(c.Conf)
	a := bed.Do(plugin.Add, c)
	if a.Exit != 0 {
		t.Fatal(a.Stdout)
	}
	pings(t, bed, stub)
	msg := bed.Fails(plugin.Add, c, cnierr.AlreadyAttached)
	if !strings.Contains(msg, "already exists") {
		t.Errorf("second ADD: %s", msg)
	}
	pings(t, bed, stub) // the first survives
	checked := with(c, `"prevResult":`+a.Stdout)
	if semver.AtLeast(version, "0.4.0") {
		bed.Must(plugin.Check, checked)
	}
	bed.Must(plugin.Del, checked)
	bed.Must(plugin.Del, c)
	if semver.AtLeast(version, "0.4.0") {
		bed.Fails(plugin.Check, checked, cnierr.CheckFailed)
	}
	if semver.AtLeast(version, "1.1.0") {
		bed.Must(plugin.GC, with(c, `"cni.dev/valid-attachments":[]`))
	}
	if stub.Held != 0 {
		t.Errorf("%d addresses held after DEL", stub.Held)
	}
	if links := bed.IP("-br", "link", "show", "type", "veth"); links != "" {
		t.Errorf("left behind:\n%s", links)
	}
}

func versionIn(conf string) string { return conf[len(`{"cniVersion":"`):][:len("1.1.0")] }

// pings reaches the gateways from the sandbox.
func pings(t *testing.T, bed *nltest.Bed, stub *nltest.StubIPAM) {
	t.Helper()
	for _, a := range stub.Addresses {
		_, gw, _ := strings.Cut(a, " ")
		bed.In(bed.Sandbox, func() { bed.Run("ping", "-c1", "-W2", gw) })
	}
}

// DEL works whatever part of the attachment is gone already.
func TestDetachWithParts(t *testing.T) {
	for what, breakIt := range map[string]func(*nltest.Bed, *nltest.Call){
		"no sandbox path":      func(_ *nltest.Bed, c *nltest.Call) { c.Netns = nltest.NoNetns },
		"sandbox path gone":    func(_ *nltest.Bed, c *nltest.Call) { c.Netns = "/run/netns/gone" },
		"path is no namespace": func(_ *nltest.Bed, c *nltest.Call) { c.Netns = "/etc/hostname" },
		"path is the host's":   func(_ *nltest.Bed, c *nltest.Call) { c.Netns = "/proc/thread-self/ns/net" },
		"interface gone":       func(b *nltest.Bed, _ *nltest.Call) { b.SandboxIP("link", "del", "eth0") },
		"bridge gone":          func(b *nltest.Bed, _ *nltest.Call) { b.IP("link", "del", "br0") },
		"journal gone":         func(b *nltest.Bed, _ *nltest.Call) { b.Run("rm", "-r", string(b.Journal())) },
		"journal and path gone": func(b *nltest.Bed, c *nltest.Call) {
			b.Run("rm", "-r", string(b.Journal()))
			c.Netns = nltest.NoNetns
		},
		"configuration bad": func(_ *nltest.Bed, c *nltest.Call) { *c = with(*c, `"mtu":-1,"vlan":"x"`) },
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			stub := dualStack()
			c := call(stub, `"isGateway":true`)
			bed.Must(plugin.Add, c)
			breakIt(bed, &c)
			bed.Must(plugin.Del, c)
			if links := bed.IP("-br", "link", "show", "type", "veth"); links != "" {
				t.Errorf("left behind:\n%s", links)
			}
			if stub.Held != 0 {
				t.Errorf("%d addresses held", stub.Held)
			}
			bed.Must(plugin.Del, c)
		})
	}
}

// A sandbox path that has come to name another container's namespace, as
// /proc/<pid>/ns/net does, costs that container nothing.
func TestDetachSparesTheNextContainer(t *testing.T) {
	bed := nltest.New(t)
	c := call(dualStack(), "")
	bed.Must(plugin.Add, c)
	next := bed.NewSandbox()
	other := call(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16"}}, "")
	other.ContainerID, other.Netns = "c2", bed.PathOf(next)
	bed.Must(plugin.Add, other)

	c.Netns = other.Netns
	bed.Must(plugin.Del, c)
	never := call(dualStack(), "")
	never.ContainerID, never.Netns = "c3", other.Netns
	bed.Must(plugin.Del, never)
	bed.In(next, func() { bed.Run("ip", "link", "show", "eth0") })
}

// What an ADD left that was killed, or whose clean-up the kernel refused, the
// next ADD takes away; DEL does, too.
func TestRetryAfterCrash(t *testing.T) {
	for _, verb := range []string{plugin.Add, plugin.Del} {
		t.Run(verb, func(t *testing.T) {
			bed := nltest.New(t)
			stub := dualStack()
			c := call(stub, `"isGateway":true`)
			seen := 0
			c.Gate = func(string) error { // all changes after the pair's creation: also those that undo
				if seen++; seen > 4 {
					return unix.EIO
				}
				return nil
			}
			bed.Fails(plugin.Add, c, cnierr.Internal)
			if !strings.Contains(bed.IP("-br", "link"), "veth") {
				t.Fatal("the fault leaves nothing to clean up")
			}
			c.Gate = nil
			bed.Must(verb, c)
			if verb == plugin.Add {
				pings(t, bed, stub)
				bed.Must(plugin.Del, c)
			}
			if links := bed.IP("-br", "link", "show", "type", "veth"); links != "" {
				t.Errorf("left behind:\n%s", links)
			}
		})
	}
}

// One container has two interfaces on one network, and one on another network.
func TestTwoInterfacesTwoNetworks(t *testing.T) {
	bed := nltest.New(t)
	add := func(name, bridge, ifname, addr string) nltest.Call {
		c := call(&nltest.StubIPAM{Addresses: []string{addr}}, "")
		c.Conf = strings.NewReplacer(`"net"`, `"`+name+`"`, "br0", bridge).Replace(c.Conf)
		c.IfName = ifname
		bed.Must(plugin.Add, c)
		return c
	}
	a, b, c := add("net", "br0", "eth0", "10.1.0.2/16"), add("net", "br0", "eth1", "10.1.0.3/16"), add("other", "br1", "eth2", "10.2.0.2/16")
	bed.Must(plugin.Del, b)
	links := bed.SandboxIP("-br", "link")
	if !strings.Contains(links, "eth0") || strings.Contains(links, "eth1") || !strings.Contains(links, "eth2") {
		t.Errorf("after DEL of eth1:\n%s", links)
	}
	bed.Must(plugin.Del, a)
	bed.Must(plugin.Del, c)
}

// A failed ADD gives the addresses back when nothing answers at them any more, and
// not at all where the link cannot be removed.
func TestAddressOutlivesTheLink(t *testing.T) {
	for name, stuck := range map[string]bool{"link goes": false, "link stays": true} {
		t.Run(name, func(t *testing.T) {
			bed := nltest.New(t)
			stub := &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1"}}
			c, failed, deleted := call(stub, `"isGateway":true`), false, false
			c.Gate = func(what string) error {
				deletes := strings.HasPrefix(what, "delete veth")
				if deletes && stub.Held == 0 && !deleted {
					t.Errorf("%s: after its address was given back", what)
				}
				deleted = deleted || deletes
				if !failed && strings.HasPrefix(what, "announce") || deletes && stuck {
					failed = true
					return errors.New("refused")
				}
				return nil
			}
			bed.Fails(plugin.Add, c, cnierr.Internal)
			if !failed {
				t.Fatal("nothing was refused")
			}
			if held := stub.Held == 1; held != stuck {
				t.Errorf("holds its address: %v", held)
			}
		})
	}
}

// GC removes what is not listed, of this network alone.
func TestGC(t *testing.T) {
	for list, want := range map[string]string{
		`"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]`: "c1",
		`"cni.dev/attachments":[{"containerID":"c1","ifname":"eth0"}]`:       "c1",
		`"cni.dev/valid-attachments":null`:                                   "",
		`"cni.dev/valid-attachments":[]`:                                     "",
		`"x":1`:                                                              "c1 c2",
	} {
		t.Run(list, func(t *testing.T) {
			bed := nltest.New(t)
			c := call(&nltest.StubIPAM{Addresses: []string{"10.1.0.2/16"}}, "")
			bed.Must(plugin.Add, c)
			c2 := call(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16"}}, "")
			c2.ContainerID, c2.Netns = "c2", bed.PathOf(bed.NewSandbox())
			bed.Must(plugin.Add, c2)
			foreign := call(&nltest.StubIPAM{Addresses: []string{"10.2.0.3/16"}}, "")
			foreign.Conf = strings.Replace(foreign.Conf, `"net"`, `"foreign"`, 1)
			foreign.ContainerID, foreign.Netns = "c3", bed.PathOf(bed.NewSandbox())
			bed.Must(plugin.Add, foreign)

			bed.Must(plugin.GC, with(c, list))
			links := bed.IP("link")
			for _, id := range []string{"c1", "c2"} {
				if got := strings.Contains(links, "net "+id+" "); got != strings.Contains(want, id) {
					t.Errorf("%s: attached %v after GC", id, got)
				}
			}
			if !strings.Contains(links, "foreign c3") {
				t.Error("GC removed another network's attachment")
			}
		})
	}
}

// A network without IPAM is layer 2, and all verbs work on it.
func TestLayer2(t *testing.T) {
	bed := nltest.New(t)
	c := call(nil, "")
	a := bed.Do(plugin.Add, c)
	if a.Exit != 0 {
		t.Fatal(a.Stdout)
	}
	bed.Must(plugin.Check, with(c, `"prevResult":`+a.Stdout))
	if link := bed.SandboxIP("link", "show", "eth0"); !strings.Contains(link, "UP") {
		t.Errorf("interface is down: %s", link)
	}
	bed.Must(plugin.Status, c)
	bed.Must(plugin.Del, c)
}

func TestDisableContainerInterface(t *testing.T) {
	bed := nltest.New(t)
	bed.Must(plugin.Add, call(nil, `"disableContainerInterface":true`))
	if link := bed.SandboxIP("link", "show", "eth0"); strings.Contains(link, ",UP") {
		t.Errorf("interface is up: %s", link)
	}
}

// What the keys ask for is what the kernel has.
func TestPortAndBridge(t *testing.T) {
	for keys, want := range map[string]struct{ args, text string }{
		`"hairpinMode":true`:                          {"-d link show type veth", "hairpin on"},
		`"portIsolation":true`:                        {"-d link show type veth", "isolated on"},
		`"promiscMode":true`:                          {"-d link show br0", "PROMISC"},
		`"mtu":1280`:                                  {"-d link show br0", "mtu 1280"},
		`"runtimeConfig":{"mac":"02:00:00:00:00:77"}`: {"-n SANDBOX link show eth0", "02:00:00:00:00:77"},
	} {
		t.Run(keys, func(t *testing.T) {
			bed := nltest.New(t)
			c := call(nil, keys)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			args, inSandbox := strings.CutPrefix(want.args, "-n SANDBOX ")
			show := bed.IP
			if inSandbox {
				show = bed.SandboxIP
			}
			if got := show(strings.Fields(args)...); !strings.Contains(got, want.text) {
				t.Errorf("no %q in\n%s", want.text, got)
			}
			bed.Must(plugin.Check, with(c, `"prevResult":`+a.Stdout))
		})
	}
}

// The bridge's MAC address does not change with its ports.
func TestBridgeMACIsStable(t *testing.T) {
	bed := nltest.New(t)
	c := call(nil, "")
	first := bed.Must(plugin.Add, c).Interfaces[atBridge].Mac
	for i := range 8 {
		c.ContainerID, c.Netns = fmt.Sprint("more", i), bed.PathOf(bed.NewSandbox())
		if mac := bed.Must(plugin.Add, c).Interfaces[atBridge].Mac; mac != first {
			t.Fatalf("bridge had %s, now %s", first, mac)
		}
	}
}

// Router advertisements are off in the sandbox before it is up, and so is IPv6
// where no address of it was given; a user of SLAAC says otherwise.
func TestIPv6Defaults(t *testing.T) {
	v4 := &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16"}}
	for name, c := range map[string]struct {
		call nltest.Call
		key  string
		want string
	}{
		"v4":            {call(v4, ""), "disable_ipv6", "1"},
		"v4, acceptRA":  {call(v4, `"acceptRA":true`), "disable_ipv6", "0"},
		"dual":          {call(dualStack(), ""), "accept_ra", "0"},
		"dual acceptRA": {call(dualStack(), `"acceptRA":true`), "accept_ra", "1"},
		"layer 2":       {call(nil, ""), "disable_ipv6", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			bed := nltest.New(t)
			bed.Must(plugin.Add, c.call)
			bed.In(bed.Sandbox, func() {
				if got := strings.TrimSpace(bed.Run("cat", "/proc/sys/net/ipv6/conf/eth0/"+c.key)); got != c.want {
					t.Errorf("%s=%s, want %s", c.key, got, c.want)
				}
			})
			if got := strings.TrimSpace(bed.Run("cat", "/proc/sys/net/ipv6/conf/br0/accept_ra")); got != "0" {
				t.Errorf("bridge has accept_ra=%s", got)
			}
		})
	}
}

// A different address of the bridge is kept unless the configuration replaces
// it; the default route is added once.
func TestGatewayAddress(t *testing.T) {
	bed := nltest.New(t)
	bed.IP("link", "add", "br0", "type", "bridge")
	bed.IP("addr", "add", "10.9.0.1/16", "dev", "br0")
	stub := &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16"}, Routes: []string{"0.0.0.0/0"}}
	msg := bed.Fails(plugin.Add, call(stub, `"isDefaultGateway":true`), cnierr.InvalidConfig)
	if !strings.Contains(msg, `"br0" already has an IP address different from 10.1.0.1/16`) {
		t.Error(msg)
	}
	if stub.Held != 0 {
		t.Error("refused ADD holds an address")
	}
	res := bed.Must(plugin.Add, call(stub, `"isDefaultGateway":true,"forceAddress":true`))
	if got := bed.IP("-br", "addr", "show", "br0"); !strings.Contains(got, "10.1.0.1/16") || strings.Contains(got, "10.9.0.1") {
		t.Errorf("bridge has %s", got)
	}
	if len(res.Routes) != 1 || res.IPs[0].Gateway.String() != "10.1.0.1" {
		t.Errorf("routes %v, gateway %v", res.Routes, res.IPs[0].Gateway)
	}
	pings(t, bed, &nltest.StubIPAM{Addresses: []string{" 10.1.0.1"}})
}

// A gateway that is unspecified is none: routes lead to the link, and the bridge has
// no address.
func TestUnspecifiedGateway(t *testing.T) {
	for _, keys := range []string{`"isGateway":true`, `"isDefaultGateway":true`, `"mtu":1400`} {
		bed := nltest.New(t)
		stub := &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 0.0.0.0", "fd00:1::2/64 ::"}, Routes: []string{"0.0.0.0/0", "::/0"}}
		c := call(stub, keys)
		a := bed.Do(plugin.Add, c)
		if a.Exit != 0 {
			t.Fatal(a.Stdout)
		}
		bed.Must(plugin.Check, with(c, `"prevResult":`+a.Stdout))
		if got := bed.SandboxIP("route"); !strings.Contains(got, "default dev eth0") {
			t.Errorf("%s: routes %s", keys, got)
		}
		if got := bed.IP("-4", "addr", "show", "br0"); got != "" {
			t.Errorf("%s: the bridge has %s", keys, got)
		}
		bed.Must(plugin.Del, c)
	}
}

// A link of the bridge's name that is none is left alone.
func TestNotABridge(t *testing.T) {
	bed := nltest.New(t)
	bed.IP("link", "add", "br0", "type", "veth", "peer", "name", "p0")
	msg := bed.Fails(plugin.Add, call(nil, ""), cnierr.InvalidConfig)
	if msg != `failed to create bridge "br0": "br0" already exists but is not a bridge` {
		t.Error(msg)
	}
}

// An address that another container had before is reachable at once.
func TestAddressReuse(t *testing.T) {
	bed := nltest.New(t)
	stub := &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1"}}
	c := call(stub, `"isGateway":true`)
	bed.Must(plugin.Add, c)
	bed.Run("ping", "-c1", "-W1", "10.1.0.2")
	bed.Must(plugin.Del, c)
	c.ContainerID, c.Netns = "c2", bed.PathOf(bed.NewSandbox())
	bed.Must(plugin.Add, c)
	bed.Run("ping", "-c1", "-W1", "10.1.0.2")
}

// Every route attribute of the result reaches the kernel.
func TestRouteAttributes(t *testing.T) {
	bed := nltest.New(t)
	stub := &nltest.StubIPAM{
		Addresses: []string{"10.1.0.2/16 10.1.0.1"},
		Raw:       `"routes":[{"dst":"0.0.0.0/0","mtu":1200,"advmss":1100,"priority":42,"table":100},{"dst":"192.0.2.0/24","scope":253}]`,
	}
	bed.Must(plugin.Add, call(stub, `"isGateway":true`))
	if got := bed.SandboxIP("route", "show", "table", "100"); !strings.Contains(got, "metric 42 mtu 1200 advmss 1100") {
		t.Errorf("table 100: %s", got)
	}
	if got := bed.SandboxIP("route"); !strings.Contains(got, "192.0.2.0/24 dev eth0 scope link") {
		t.Errorf("main table: %s", got)
	}
}

// CHECK sees an end that is down, on either side.
func TestCheckSeesDown(t *testing.T) {
	for _, side := range []string{"host", "sandbox"} {
		t.Run(side, func(t *testing.T) {
			bed := nltest.New(t)
			c := call(dualStack(), "")
			a := bed.Do(plugin.Add, c)
			var made struct{ Interfaces []struct{ Name string } }
			if err := json.Unmarshal([]byte(a.Stdout), &made); err != nil || len(made.Interfaces) <= atHost {
				t.Fatalf("%s: %v", a.Stdout, err)
			}
			c = with(c, `"prevResult":`+a.Stdout)
			bed.Must(plugin.Check, c)
			if side == "host" {
				bed.IP("link", "set", made.Interfaces[atHost].Name, "down")
			} else {
				bed.SandboxIP("link", "set", "eth0", "down")
			}
			if msg := bed.Fails(plugin.Check, c, cnierr.CheckFailed); !strings.Contains(msg, "down") && !strings.Contains(msg, "missing") {
				t.Errorf("error: %s", msg)
			}
		})
	}
}

// CHECK sees that promiscuous mode was switched off, and does not mind that it is on.
func TestCheckSeesPromiscMode(t *testing.T) {
	bed := nltest.New(t)
	c := call(dualStack(), `"promiscMode":true`)
	a := bed.Do(plugin.Add, c)
	c = with(c, `"prevResult":`+a.Stdout)
	bed.Must(plugin.Check, c)
	bed.Must(plugin.Check, with(call(dualStack(), ""), `"prevResult":`+a.Stdout))
	bed.IP("link", "set", "br0", "promisc", "off")
	if msg := bed.Fails(plugin.Check, c, cnierr.CheckFailed); msg != "bridge br0: promiscuous mode is off" {
		t.Errorf("error: %s", msg)
	}
}
