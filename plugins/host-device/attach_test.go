package hostdevice

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

// The device of these tests is one end of a veth pair; the other end, up1p, is
// the LAN that it is plugged into. Unlike a physical device it dies with its
// namespace.
const mac = "52:54:00:12:34:56"

func plugIn(t *testing.T, b *nltest.Bed) {
	t.Helper()
	b.IPBatch(`
		link add up1 address ` + mac + ` mtu 1450 type veth peer name up1p
		link set up1p up
		addr add 10.1.0.1/16 dev up1p
		addr add fd00:1::1/64 dev up1p nodad`)
	b.AwaitLocal(net.ParseIP("fd00:1::1"))
}

// await waits until ip(8) prints the text.
func await(t *testing.T, b *nltest.Bed, text string, args ...string) {
	t.Helper()
	w, err := nl.NewWatch(nil, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	err = w.Until(time.Now().Add(5*time.Second), func() (bool, error) { return strings.Contains(b.IP(args...), text), nil })
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatalf("%v: ip %v has no %q:\n%s", err, args, text, b.IP(args...))
	}
}

func table(stub *nltest.StubIPAM) plugin.Table {
	return plugin.Table{name: Plugin, "stub": stub.Plugin()}
}

func dualStack() *nltest.StubIPAM {
	return &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1", "fd00:1::2/64 fd00:1::1"}, Routes: []string{"0.0.0.0/0", "::/0"}}
}

func call(stub *nltest.StubIPAM, keys string) nltest.Call {
	c := nltest.Call{Plugin: name, IfName: "net1", Conf: `{"cniVersion":"1.1.0","name":"net","type":"host-device",` + keys}
	if stub == nil {
		c.Table, c.Conf = table(&nltest.StubIPAM{}), c.Conf+"}"
		return c
	}
	c.Table, c.Conf = table(stub), c.Conf+`,"ipam":{"type":"stub"}}`
	return c
}

func with(c nltest.Call, keys string) nltest.Call {
	c.Conf = strings.TrimSuffix(c.Conf, "}") + "," + keys + "}"
	return c
}

// wantHome fails the test unless the device is on the host as it was.
func wantHome(t *testing.T, b *nltest.Bed, before string) {
	t.Helper()
	if got := deviceText(b); got != before {
		t.Errorf("the device is\n%s\nand was\n%s", got, before)
	}
	if links := b.SandboxIP("-br", "link"); strings.Contains(links, "net1") {
		t.Errorf("left in the sandbox:\n%s", links)
	}
}

// deviceText is what ip(8) says of the device, its carrier left out.
func deviceText(b *nltest.Bed) string {
	text, _ := b.Try("ip", "-d", "link", "show", "up1")
	for _, volatile := range []string{",LOWER_UP", "NO-CARRIER,", "qdisc noqueue ", "qdisc noop ", " state UP", " state DOWN", " state LOWERLAYERDOWN"} {
		text = strings.ReplaceAll(text, volatile, "")
	}
	return text
}

func TestAttachLeavesNoTrace(t *testing.T) {
	for _, what := range []string{"down", "up, in use"} {
		t.Run(what, func(t *testing.T) {
			stub := dualStack()
			nltest.NoTrace(t, call(stub, `"device":"up1"`), func(b *nltest.Bed) {
				if stub.Held > 0 {
					t.Errorf("%d addresses held by a failed ADD", stub.Held)
				}
				stub.Held = 0
				plugIn(t, b)
				if what == "up, in use" {
					use(t, b)
				}
			})
		})
	}
}

// use gives the device what a host gives to a device that it uses.
func use(t *testing.T, b *nltest.Bed) {
	t.Helper()
	b.IPBatch(`
		link set up1 up promisc on alias "to the lab"
		addr add 192.0.2.1/24 dev up1
		route add 198.51.100.0/24 via 192.0.2.9 metric 7`)
}

func TestFailedIPAMGivesTheDeviceBack(t *testing.T) {
	bed := nltest.New(t)
	plugIn(t, bed)
	use(t, bed)
	local := []string{"-6", "route", "show", "table", "local"} // which the kernel fills in its own time
	bed.IP("addr", "add", "2001:db8::1/64", "dev", "up1", "nodad")
	bed.IP("route", "add", "2001:db8:1::/64", "via", "2001:db8::9", "mtu", "1300")
	await(t, bed, "local 2001:db8::1 dev up1", local...)
	before := bed.Snapshot()
	stub := dualStack()
	stub.Err = errors.New("no addresses")
	bed.Fails(plugin.Add, call(stub, `"device":"up1"`), cnierr.Internal)
	await(t, bed, "local 2001:db8::1 dev up1", local...)
	if diff := cmp.Diff(before, bed.Snapshot()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

func TestLifecycle(t *testing.T) {
	families := map[string]*nltest.StubIPAM{
		"v4":   {Addresses: []string{"10.1.0.2/16 10.1.0.1"}, Routes: []string{"0.0.0.0/0"}},
		"v6":   {Addresses: []string{"fd00:1::2/64 fd00:1::1"}, Routes: []string{"::/0"}},
		"dual": dualStack(),
	}
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for family, stub := range families {
			t.Run(version+" "+family, func(t *testing.T) {
				bed := nltest.New(t)
				plugIn(t, bed)
				bed.IP("link", "set", "up1", "up", "alias", "to the lab")
				c := call(stub, `"device":"up1"`)
				c.Conf = strings.Replace(c.Conf, "1.1.0", version, 1)
				lifecycle(t, bed, c, version)
				if stub.Held != 0 {
					t.Errorf("%d addresses held after DEL", stub.Held)
				}
			})
		}
	}
}

func lifecycle(t *testing.T, bed *nltest.Bed, c nltest.Call, version string) {
	t.Helper()
	before := deviceText(bed)
	a := bed.Do(plugin.Add, c)
	if a.Exit != 0 {
		t.Fatal(a.Stdout)
	}
	if out := bed.SandboxIP("-d", "link", "show", "net1"); !strings.Contains(out, "alias up1") || !strings.Contains(out, mac) {
		t.Errorf("in the sandbox:\n%s", out)
	}
	pings(bed, a.Stdout)
	bed.Fails(plugin.Add, c, cnierr.AlreadyAttached)
	pings(bed, a.Stdout) // the first survives
	checked := with(c, `"prevResult":`+a.Stdout)
	if semver.AtLeast(version, "0.4.0") {
		bed.Must(plugin.Check, checked)
	}
	bed.Must(plugin.Del, checked)
	wantHome(t, bed, before)
	bed.Must(plugin.Del, c)
	wantHome(t, bed, before)
	if semver.AtLeast(version, "0.4.0") {
		bed.Fails(plugin.Check, checked, cnierr.CheckFailed)
	}
	if semver.AtLeast(version, "1.1.0") {
		bed.Must(plugin.Status, c)
		bed.Must(plugin.GC, with(c, `"cni.dev/valid-attachments":[]`))
	}
}

// pings reaches the gateways, of IPv6 once the address is known to be unique.
func pings(bed *nltest.Bed, result string) {
	for _, gw := range []string{"10.1.0.1", "fd00:1::1"} {
		answered := !strings.Contains(result, gw)
		for end := time.Now().Add(5 * time.Second); !answered && time.Now().Before(end); {
			answered = bed.Pings(bed.Sandbox, gw, 250*time.Millisecond)
		}
		if !answered {
			bed.Reaches(bed.Sandbox, gw)
		}
	}
}

// What the container changed is undone.
func TestDetachRestores(t *testing.T) {
	for what, change := range map[string][]string{
		"mtu":         {"link", "set", "net1", "mtu", "1280"},
		"address":     {"link", "set", "net1", "address", "02:00:00:00:00:99"},
		"promiscuous": {"link", "set", "net1", "promisc", "on"},
		"down":        {"link", "set", "net1", "down"},
		"renamed":     {"link", "set", "net1", "name", "other"},
		"alias":       {"link", "set", "net1", "alias", "mine"},
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			plugIn(t, bed)
			bed.IP("link", "set", "up1", "up", "alias", "to the lab")
			before := deviceText(bed)
			c := call(dualStack(), `"device":"up1"`)
			bed.Must(plugin.Add, c)
			if what == "renamed" {
				bed.SandboxIP("link", "set", "net1", "down") // before Linux 6.2 it must be
			}
			bed.SandboxIP(change...)
			bed.Must(plugin.Del, c)
			wantHome(t, bed, before)
		})
	}
}

func TestDetachWithParts(t *testing.T) {
	for what, breakIt := range map[string]func(*nltest.Bed, *nltest.Call){
		"no sandbox path":      func(_ *nltest.Bed, c *nltest.Call) { c.Netns = nltest.NoNetns },
		"sandbox path gone":    func(_ *nltest.Bed, c *nltest.Call) { c.Netns = "/run/netns/gone" },
		"path is no namespace": func(_ *nltest.Bed, c *nltest.Call) { c.Netns = "/etc/hostname" },
		"path is the host's":   func(_ *nltest.Bed, c *nltest.Call) { c.Netns = "/proc/thread-self/ns/net" },
		"path is another's":    func(b *nltest.Bed, c *nltest.Call) { c.Netns = b.PathOf(b.NewSandbox()) },
		"no device in the configuration": func(_ *nltest.Bed, c *nltest.Call) {
			c.Conf = strings.Replace(c.Conf, `"device":"up1"`, `"x":1`, 1)
		},
		"configuration bad":   func(_ *nltest.Bed, c *nltest.Call) { *c = with(*c, `"hwaddr":"x","pciBusID":7`) },
		"unplugged PCI slot":  func(_ *nltest.Bed, c *nltest.Call) { *c = with(*c, `"pciBusID":"0000:ff:1f.7"`) },
		"deviceID that isn't": func(_ *nltest.Bed, c *nltest.Call) { *c = with(*c, `"runtimeConfig":{"deviceID":"gone"}`) },
		"moved back by hand":  func(b *nltest.Bed, _ *nltest.Call) { moveToHost(b) },
		"back under its own name": func(b *nltest.Bed, _ *nltest.Call) {
			moveToHost(b)
			b.IP("link", "set", "net1", "name", "up1")
		},
		"back, and the path gone": func(b *nltest.Bed, c *nltest.Call) {
			moveToHost(b)
			c.Netns = "/run/netns/gone"
		},
		"back under a name of the kernel's": func(b *nltest.Bed, c *nltest.Call) {
			moveToHost(b)
			b.IP("link", "set", "net1", "name", "dev0")
			b.IP("link", "set", "dev0", "up", "mtu", "1280")
			c.Netns = nltest.NoNetns
		},
		"journal gone": func(b *nltest.Bed, _ *nltest.Call) { forget(b) },
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			plugIn(t, bed)
			before := deviceText(bed)
			stub := dualStack()
			c := call(stub, `"device":"up1"`)
			bed.Must(plugin.Add, c)
			breakIt(bed, &c)
			bed.Must(plugin.Del, c)
			wantHome(t, bed, before)
			if stub.Held != 0 {
				t.Errorf("%d addresses held", stub.Held)
			}
			bed.Must(plugin.Del, c)
			wantHome(t, bed, before)
		})
	}
}

func moveToHost(b *nltest.Bed) {
	b.SandboxIP("link", "set", "net1", "netns", b.PathOf(b.Host))
}

func forget(b *nltest.Bed) { b.Run("rm", "-r", string(b.Journal())) }

func TestDeviceGone(t *testing.T) {
	bed := nltest.New(t)
	plugIn(t, bed)
	stub := dualStack()
	c := call(stub, `"device":"up1"`)
	bed.Must(plugin.Add, c)
	bed.IP("link", "del", "up1p")
	a := bed.Do(plugin.Del, c)
	if a.Exit != 0 || !strings.Contains(a.Stderr, "device up1 is neither in the sandbox nor on the host") {
		t.Errorf("exit %d: %s%s", a.Exit, a.Stdout, a.Stderr)
	}
	if stub.Held != 0 {
		t.Errorf("%d addresses held", stub.Held)
	}
}

func TestNameTakenMeanwhile(t *testing.T) {
	bed := nltest.New(t)
	plugIn(t, bed)
	c := call(nil, `"device":"up1"`)
	bed.Must(plugin.Add, c)
	bed.IP("link", "add", "up1", "type", "veth", "peer", "name", "x")
	a := bed.Do(plugin.Del, c)
	if a.Exit != 0 || !strings.Contains(a.Stderr, "another interface of the host has taken its name: it is up1_0 now") {
		t.Errorf("exit %d: %s%s", a.Exit, a.Stdout, a.Stderr)
	}
	if out := bed.IP("link", "show", "up1_0"); !strings.Contains(out, mac) {
		t.Errorf("not the device:\n%s", out)
	}
}

// The sandbox has an interface of the device's own name: it is renamed on arrival.
func TestSandboxHasTheDevicesName(t *testing.T) {
	bed := nltest.New(t)
	plugIn(t, bed)
	before := deviceText(bed)
	bed.SandboxIP("link", "add", "up1", "type", "veth", "peer", "name", "x")
	c := call(nil, `"device":"up1"`)
	bed.Must(plugin.Add, c)
	bed.Must(plugin.Del, c)
	wantHome(t, bed, before)
	bed.SandboxIP("link", "show", "up1")
}

// The host has an interface of the container's name.
func TestHostHasTheContainersName(t *testing.T) {
	bed := nltest.New(t)
	plugIn(t, bed)
	before := deviceText(bed)
	bed.IP("link", "add", "net1", "type", "veth", "peer", "name", "x")
	c := call(nil, `"device":"up1"`)
	bed.Must(plugin.Add, c)
	bed.Must(plugin.Del, c)
	wantHome(t, bed, before)
	bed.IP("link", "show", "net1")
}

func TestInterfaceNameTaken(t *testing.T) {
	bed := nltest.New(t)
	plugIn(t, bed)
	before := deviceText(bed)
	bed.SandboxIP("link", "add", "net1", "type", "veth", "peer", "name", "x")
	stub := dualStack()
	bed.Fails(plugin.Add, call(stub, `"device":"up1"`), cnierr.AlreadyAttached)
	if got := deviceText(bed); got != before {
		t.Errorf("the device is\n%s\nand was\n%s", got, before)
	}
	if out := bed.SandboxIP("link", "show", "net1"); strings.Contains(out, mac) {
		t.Error(out)
	}
}

func TestRefused(t *testing.T) {
	for what, c := range map[string]struct {
		keys    string
		prepare func(*nltest.Bed)
		code    uint
		words   string
	}{
		"missing":  {`"device":"up9"`, func(*nltest.Bed) {}, cnierr.InvalidConfig, `failed to find host device: Link not found; device "up9"`},
		"loopback": {`"device":"lo"`, func(*nltest.Bed) {}, cnierr.InvalidConfig, "lo is the host's loopback interface"},
		"bridge":   {`"device":"br9"`, func(b *nltest.Bed) { b.IP("link", "add", "br9", "type", "bridge") }, cnierr.Internal, `device "br9": move br9 into the sandbox as net1: `},
		"enslaved": {`"device":"up1"`, func(b *nltest.Bed) {
			b.IP("link", "add", "br9", "type", "bridge")
			b.IP("link", "set", "up1", "master", "br9")
		}, cnierr.InvalidConfig, "up1 is a port of br9: take it out first"},
		"in use": {`"device":"up1"`, func(b *nltest.Bed) {
			first := call(nil, `"device":"up1"`)
			first.ContainerID, first.Netns = "other", b.PathOf(b.NewSandbox())
			b.Must(plugin.Add, first)
		}, cnierr.TryAgain, `device "up1" is in use: container "other" interface "net1" on network "net" has it`},
		"no address": {`"hwaddr":"52:54:00:00:00:01"`, func(*nltest.Bed) {}, cnierr.InvalidConfig, "hwaddr 52:54:00:00:00:01"},
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			plugIn(t, bed)
			c.prepare(bed)
			before := bed.Snapshot()
			stub := dualStack()
			msg := bed.Fails(plugin.Add, call(stub, c.keys), c.code)
			if !strings.Contains(msg, c.words) {
				t.Errorf("%s\nwant %s", msg, c.words)
			}
			if diff := cmp.Diff(before, bed.Snapshot()); diff != "" {
				t.Errorf("a refused ADD changed something (-before +after):\n%s", diff)
			}
			if stub.Held != 0 {
				t.Error("a refused ADD holds an address")
			}
		})
	}
}

// A macvlan has its parent's address: the parent is meant.
func TestHardwareAddress(t *testing.T) {
	bed := nltest.New(t)
	plugIn(t, bed)
	nltest.Require(t, "macvlan", bed.HasLink("macvlan", "mode", "bridge"))
	bed.IP("link", "add", "aaa0", "link", "up1", "address", mac, "type", "macvlan")
	c := call(nil, `"hwaddr":"`+strings.ToUpper(mac)+`"`)
	bed.Must(plugin.Add, c)
	if out := bed.SandboxIP("-d", "link", "show", "net1"); !strings.Contains(out, "alias up1") {
		t.Error(out)
	}
	bed.Must(plugin.Del, c)
	bed.IP("link", "show", "up1")
}

func TestDetachSparesTheNextContainer(t *testing.T) {
	bed := nltest.New(t)
	plugIn(t, bed)
	bed.IP("link", "add", "up2", "type", "veth", "peer", "name", "up2p")
	c := call(nil, `"device":"up1"`)
	bed.Must(plugin.Add, c)
	next := bed.NewSandbox()
	other := call(nil, `"device":"up2"`)
	other.ContainerID, other.Netns = "c2", bed.PathOf(next)
	bed.Must(plugin.Add, other)

	c.Netns = other.Netns
	bed.Must(plugin.Del, c)
	bed.IP("link", "show", "up1")
	never := call(nil, `"device":"up2"`)
	never.ContainerID, never.Netns = "c3", other.Netns
	bed.Must(plugin.Del, never)
	bed.In(next, func() { bed.Run("ip", "link", "show", "net1") })
}

// Without a record only an alias that fits the configuration tells a device.
func TestForeign(t *testing.T) {
	for what, c := range map[string]struct {
		keys, alias string
		back        bool
	}{
		"the reference's":       {`"device":"up1"`, "up1", true},
		"by address":            {`"hwaddr":"` + mac + `"`, "up1", true},
		"by PCI address":        {`"pciBusID":"0000:03:00.0"`, "up1", true},
		"another device's":      {`"device":"up2"`, "up1", false},
		"an alias of the owner": {`"device":"up1"`, "to the lab", false},
		"no alias":              {`"device":"up1"`, "", false},
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			plugIn(t, bed)
			bed.IP("link", "set", "up1", "netns", bed.Path, "name", "net1")
			bed.SandboxIP("link", "set", "net1", "up", "alias", c.alias)
			stub := dualStack()
			stub.Held = 1
			bed.Must(plugin.Del, call(stub, c.keys))
			out, back := bed.Try("ip", "link", "show", "up1")
			if back != c.back || strings.Contains(out, "alias") {
				t.Errorf("back on the host: %v, want %v: %s", back, c.back, out)
			}
			if stub.Held != 0 {
				t.Error("the address is held")
			}
		})
	}
}

func TestRetryAfterCrash(t *testing.T) {
	for _, verb := range []string{plugin.Add, plugin.Del} {
		for at := 1; at <= 6; at++ {
			t.Run(fmt.Sprint(verb, at), func(t *testing.T) {
				bed := nltest.New(t)
				plugIn(t, bed)
				bed.IP("link", "set", "up1", "up")
				before := deviceText(bed)
				stub := dualStack()
				c := call(stub, `"device":"up1"`)
				seen := 0
				c.Gate = func(string) error { // all changes from one on: also those that undo
					if seen++; seen >= at {
						return errors.New("killed")
					}
					return nil
				}
				if bed.Do(plugin.Add, c).Exit == 0 {
					t.Fatal("nothing was refused")
				}
				c.Gate = nil
				if verb == plugin.Add {
					bed.Must(plugin.Add, c)
				}
				bed.Must(plugin.Del, c)
				wantHome(t, bed, before)
			})
		}
	}
}

// A DEL that is refused anything can be repeated, and then ends well.
func TestDetachRetry(t *testing.T) {
	for at := 1; ; at++ {
		hit := false
		t.Run(fmt.Sprint("refuse change ", at), func(t *testing.T) {
			bed := nltest.New(t)
			plugIn(t, bed)
			bed.IP("link", "set", "up1", "up", "alias", "to the lab")
			before := deviceText(bed)
			stub := dualStack()
			c := call(stub, `"device":"up1"`)
			bed.Must(plugin.Add, c)
			bed.SandboxIP("link", "set", "net1", "mtu", "1280")
			faults := &nltest.Faults{At: at}
			c.Gate = faults.Gate
			first := bed.Do(plugin.Del, c)
			hit = faults.Hit()
			if stub.Held != 0 {
				t.Error("the address is held")
			}
			c.Gate = nil
			bed.Must(plugin.Del, c)
			if hit && first.Exit == 0 && strings.Contains(first.Stderr, "not all is as it was") {
				return // said so, and nothing remembers the rest
			}
			wantHome(t, bed, before)
		})
		if !hit {
			return
		}
	}
}

func TestGC(t *testing.T) {
	bed := nltest.New(t)
	plugIn(t, bed)
	before := deviceText(bed)
	c := call(dualStack(), `"device":"up1"`)
	bed.Must(plugin.Add, c)
	bed.Must(plugin.GC, with(c, `"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"net1"}]`))
	bed.SandboxIP("link", "show", "net1")
	bed.Must(plugin.GC, with(c, `"cni.dev/valid-attachments":[]`))
	wantHome(t, bed, before)
}

func TestCheckFinds(t *testing.T) {
	for what, change := range map[string][]string{
		"down":    {"link", "set", "net1", "down"},
		"address": {"addr", "del", "10.1.0.2/16", "dev", "net1"},
		"route":   {"route", "del", "default"},
		"MAC":     {"link", "set", "net1", "address", "02:00:00:00:00:99"},
		"gone":    {"link", "del", "net1"},
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			plugIn(t, bed)
			c := call(dualStack(), `"device":"up1"`)
			a := bed.Do(plugin.Add, c)
			c = with(c, `"prevResult":`+a.Stdout)
			bed.Must(plugin.Check, c)
			bed.SandboxIP(change...)
			bed.Fails(plugin.Check, c, cnierr.CheckFailed)
		})
	}
}

// fakeSys is a sysfs with a PCI device, a virtio one, an auxiliary one and one
// that a driver of userspace has.
func fakeSys(t *testing.T) sysfs {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{
		"bus/pci/devices/0000:03:00.0/net/up1", "bus/pci/devices/0000:04:00.0/virtio7/net/up1", "bus/pci/devices/0000:05:00.0",
		"bus/pci/devices/0000:06:00.0", "bus/auxiliary/devices/mlx5_core.sf.2/net/up1", "devices/pci0000:00/0000:00:03.0/net/up1", "bus/pci/drivers/vfio-pci", "bus/pci/drivers/e1000",
	} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for address, driver := range map[string]string{"0000:03:00.0": "e1000", "0000:04:00.0": "e1000", "0000:05:00.0": "vfio-pci"} {
		if err := os.Symlink("../../drivers/"+driver, filepath.Join(root, "bus/pci/devices", address, "driver")); err != nil {
			t.Fatal(err)
		}
	}
	return sysfs(root)
}

func onBus(t *testing.T, stub *nltest.StubIPAM, keys string) nltest.Call {
	t.Helper()
	s := fakeSys(t)
	p := Plugin
	p.AddIn, p.DelIn, p.Status = s.attach, s.detach, s.status
	c := call(stub, keys)
	c.Table[name] = p
	return c
}

func TestBuses(t *testing.T) {
	for keys, pciID := range map[string]string{
		`"pciBusID":"0000:03:00.0"`:                                                              "0000:03:00.0",
		`"pciBusID":"0000:04:00.0"`:                                                              "0000:04:00.0",
		`"kernelpath":"/sys/devices/pci0000:00/0000:00:03.0"`:                                    "",
		`"runtimeConfig":{"deviceID":"0000:04:00.0"}`:                                            "0000:04:00.0",
		`"runtimeConfig":{"deviceID":"mlx5_core.sf.2"}`:                                          "",
		`"device":"up1","runtimeConfig":{"deviceID":"mlx5_core.sf.2"},"pciBusID":"0000:05:00.0"`: "",
	} {
		t.Run(keys, func(t *testing.T) {
			bed := nltest.New(t)
			plugIn(t, bed)
			before := deviceText(bed)
			c := onBus(t, dualStack(), keys)
			res := bed.Must(plugin.Add, c)
			if i := res.Interfaces[0]; i.PciID != pciID || i.Mac != mac || i.Name != "net1" || i.Mtu != 1450 || i.Sandbox != bed.Path {
				t.Errorf("%+v, want PCI address %q", i, pciID)
			}
			again := onBus(t, dualStack(), keys)
			again.ContainerID, again.Netns = "c2", bed.PathOf(bed.NewSandbox())
			if msg := bed.Fails(plugin.Add, again, cnierr.TryAgain); !strings.Contains(msg, `is in use: container "c1"`) {
				t.Error(msg)
			}
			bed.Must(plugin.Del, c)
			wantHome(t, bed, before)
		})
	}
}

func TestBusErrors(t *testing.T) {
	for keys, want := range map[string]string{
		`"pciBusID":"0000:06:00.0"`:                   "pciBusID 0000:06:00.0: no driver is bound to it",
		`"pciBusID":"0000:07:00.0"`:                   "pciBusID 0000:07:00.0: no such device",
		`"runtimeConfig":{"deviceID":"0000:07:00.0"}`: "runtime config DeviceID 0000:07:00.0 not found or unsupported",
		`"kernelpath":"/sys/devices/none"`:            "failed to find network device in path",
	} {
		bed := nltest.New(t)
		if msg := bed.Fails(plugin.Add, onBus(t, nil, keys), cnierr.InvalidConfig); !strings.Contains(msg, want) {
			t.Errorf("%s: %s, want %s", keys, msg, want)
		}
		bed.Must(plugin.Del, onBus(t, nil, keys))
	}
}

// A driver of userspace keeps its device; the attachment is a lease.
func TestDPDK(t *testing.T) {
	for _, keys := range []string{`"pciBusID":"0000:05:00.0"`, `"device":"up1","runtimeConfig":{"deviceID":"0000:05:00.0"}`, `"device":"up1","DPDKMode":true`} {
		t.Run(keys, func(t *testing.T) {
			bed := nltest.New(t)
			plugIn(t, bed)
			before := deviceText(bed)
			stub := dualStack()
			c := onBus(t, stub, keys)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 || stub.Held != 1 {
				t.Fatalf("%d addresses: %s", stub.Held, a.Stdout)
			}
			wantHome(t, bed, before)
			bed.Must(plugin.Check, with(c, `"prevResult":`+a.Stdout))
			c.Conf = strings.Replace(c.Conf, "0000:05:00.0", "0000:06:00.0", 1) // meanwhile unbound
			bed.Must(plugin.Del, c)
			if stub.Held != 0 {
				t.Error("the address is held")
			}
			wantHome(t, bed, before)
		})
	}
}

func TestStatus(t *testing.T) {
	bed := nltest.New(t)
	for keys, code := range map[string]uint{
		`"device":"up9"`:                      0, // some container may have it
		`"pciBusID":"0000:03:00.0"`:           0,
		`"pciBusID":"0000:07:00.0"`:           cnierr.NotAvailable,
		`"kernelpath":"/sys/devices/none"`:    cnierr.NotAvailable,
		`"runtimeConfig":{"deviceID":"none"}`: 0, // STATUS is not told which
	} {
		if code != 0 {
			bed.Fails(plugin.Status, onBus(t, nil, keys), code)
			continue
		}
		bed.Must(plugin.Status, onBus(t, nil, keys))
	}
}

// A physical device comes back a moment after its sandbox died.
func TestAwaitReturn(t *testing.T) {
	bed := nltest.New(t)
	plugIn(t, bed)
	p, err := nl.Open("", nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Host.LinkByName("up1")
	if err != nil {
		t.Fatal(err)
	}
	d := remember(l, target{})
	bed.IP("link", "set", "up1", "netns", bed.Path, "name", "net1")
	bed.SandboxIP("link", "set", "net1", "alias", "up1")
	sandbox, err := nl.Open(bed.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	home, err := nl.Open(bed.PathOf(bed.Host), nil)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() {
		l, err := sandbox.Sandbox.LinkByName("net1")
		if err != nil {
			t.Error(err)
			return
		}
		if err := sandbox.Sandbox.Do(nl.SetLink("come back", l.Index).Uint32(unix.IFLA_NET_NS_FD, uint32(home.NS.Fd()))); err != nil {
			t.Error(err)
		}
	})
	c := &plugin.Call{IfName: "net1", Stderr: &bytes.Buffer{}, Entry: &journal.Entry{}}
	l, err = awaitReturn(p, c, &d)
	if err != nil || l == nil || l.Name != "up1" {
		t.Fatalf("%+v, %v", l, err)
	}
}

// A DEL under another name of the network, which was renamed since, gives the
// device back.
func TestRenamedNetwork(t *testing.T) {
	bed := nltest.New(t)
	plugIn(t, bed)
	before := deviceText(bed)
	stub := dualStack()
	c := call(stub, `"device":"up1"`)
	bed.Must(plugin.Add, c)
	c.Conf = strings.Replace(c.Conf, `"name":"net"`, `"name":"renamed"`, 1)
	bed.Must(plugin.Del, c)
	wantHome(t, bed, before)
	if stub.Held != 0 {
		t.Errorf("%d addresses are held", stub.Held)
	}
	if left, err := bed.Journal().Networks(); err != nil || len(left) > 0 {
		t.Errorf("records are left of %v, %v", left, err)
	}
}
