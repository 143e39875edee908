package vrf

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

func conf(version, keys string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"name":"net","type":"vrf",%s,"prevResult":{"cniVersion":%q,"interfaces":[{"name":"eth0","sandbox":"/x"}]}}`, version, keys, version)
}

func newCall(keys string) nltest.Call {
	return nltest.Call{Table: plugin.Table{"vrf": Plugin}, Plugin: "vrf", Conf: conf("1.1.0", keys)}
}

// newBed is a bed in a kernel that has VRFs, with an interface as a main plugin
// leaves it.
func newBed(t *testing.T) *nltest.Bed {
	t.Helper()
	bed := nltest.New(t)
	nltest.Require(t, "vrf", bed.HasLink("vrf", "table", "10"))
	prepare(bed)
	return bed
}

func prepare(bed *nltest.Bed) {
	// The first VRF of a namespace makes rules, which stay when it goes.
	bed.In(bed.Sandbox, func() {
		_, _ = bed.Try("ip", "link", "add", "first", "type", "vrf", "table", "10")
		_, _ = bed.Try("ip", "link", "del", "first")
	})
	bed.In(bed.Sandbox, func() {
		bed.IPBatch(`
			link set lo up
			link add eth0 type veth peer name eth0p
			link add eth1 type veth peer name eth1p
			link set eth0p up
			link set eth0 up
			link set eth1p up
			link set eth1 up
			addr add 10.0.0.5/24 dev eth0
			addr add fd00::5/64 dev eth0 nodad
			route add default via 10.0.0.1
			route add 172.17.0.0/16 dev eth0
			route add 172.18.0.0/16 dev eth0 table 77
			route add default via fd00::1
			route add fd01::/64 via fe80::1 dev eth0 src fd00::5`)
	})
	quiet(bed)
}

// quiet waits until the kernel has added what it adds a little later: the
// address's route, which comes back with the link, and no address is tentative.
func quiet(bed *nltest.Bed) {
	bed.In(bed.Sandbox, func() {
		bed.AwaitLocal(net.ParseIP("fd00::5"))
		w, err := nl.NewWatch(nil, unix.RTNLGRP_IPV6_IFADDR)
		if err == nil {
			settled := func() (bool, error) { return !tentative(), nil }
			err = errors.Join(w.Until(time.Now().Add(30*time.Second), settled), w.Close())
		}
		if err != nil {
			panic("an address stays tentative: " + err.Error())
		}
	})
}

// tentative reports whether an IPv6 address of the thread's namespace is not
// proven to be unique yet: field 5 of the kernel's list are its flags.
func tentative() bool {
	addrs, err := os.ReadFile("/proc/thread-self/net/if_inet6")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(addrs)) {
		flags, err := strconv.ParseUint(strings.Fields(line)[4], 16, 32)
		if err != nil || flags&unix.IFA_F_TENTATIVE != 0 {
			return true
		}
	}
	return false
}

func snapshot(bed *nltest.Bed) string {
	quiet(bed)
	return bed.Snapshot()
}

func TestLifecycle(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for name, keys := range map[string]string{"a table": `"vrfname":"blue","table":4000`, "no table": `"vrfname":"blue"`} {
			for _, keep := range []string{"0", "1"} {
				if keep == "1" && version != "1.1.0" {
					continue // the version has nothing to do with it
				}
				t.Run(version+" "+name+" keep_addr_on_down="+keep, func(t *testing.T) {
					bed := newBed(t)
					bed.In(bed.Sandbox, func() { bed.Run("sysctl", "-qw", "net.ipv6.conf.eth0.keep_addr_on_down="+keep) })
					before := snapshot(bed)
					c := newCall("")
					c.Conf = conf(version, keys)
					bed.Must(plugin.Add, c)
					quiet(bed)
					table := "4000"
					if name == "no table" {
						table = "1"
					}
					routes := bed.SandboxIP("route", "show", "table", table) + bed.SandboxIP("-6", "route", "show", "table", table)
					for _, want := range []string{"default via 10.0.0.1", "172.17.0.0/16", "10.0.0.0/24", "default via fd00::1", "fd01::/64", "fd00::/64"} {
						if !strings.Contains(routes, want) {
							t.Errorf("the table lacks %q:\n%s", want, routes)
						}
					}
					if out := bed.SandboxIP("route", "show", "table", "77"); !strings.Contains(out, "172.18.0.0/16") {
						t.Errorf("a route of another table is lost: %s", out)
					}
					if main := bed.SandboxIP("route"); strings.Contains(main, "eth0") {
						t.Errorf("the main table has:\n%s", main)
					}
					attached := snapshot(bed)
					bed.Fails(plugin.Add, c, cnierr.AlreadyAttached)
					if got := snapshot(bed); got != attached {
						t.Errorf("a second ADD left\n%s\nwhere there was\n%s", got, attached)
					}
					if semver.AtLeast(version, "0.4.0") {
						bed.Must(plugin.Check, c)
					}
					bed.Must(plugin.Del, c)
					bed.Must(plugin.Del, c)
					if after := snapshot(bed); after != before {
						t.Errorf("DEL left\n%s\nwhere there was\n%s", after, before)
					}
				})
			}
		}
	}
}

func TestNoTrace(t *testing.T) {
	nltest.Require(t, "vrf", nltest.New(t).HasLink("vrf", "table", "10"))
	nltest.NoTrace(t, newCall(`"vrfname":"blue"`), prepare)
}

// TestAKernelWithout has the kernel refuse as one without VRFs does.
func TestAKernelWithout(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	before := snapshot(bed)
	c := newCall(`"vrfname":"blue"`)
	c.Gate = (&nltest.Faults{At: 1, Err: unix.EOPNOTSUPP}).Gate
	if msg := bed.Fails(plugin.Add, c, cnierr.UnsupportedField); !strings.Contains(msg, "the kernel lacks vrf") {
		t.Error(msg)
	}
	if after := snapshot(bed); after != before {
		t.Errorf("left\n%s\nwhere there was\n%s", after, before)
	}
}

func TestAddRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, keys, make string
		code             uint
		want             string
	}{
		{"another kind", `"vrfname":"blue"`, "link add blue type veth peer name bluep", cnierr.InvalidConfig, "Netlink blue is not a VRF"},
		{"a port of a bridge", `"vrfname":"blue"`, "link add br0 type bridge; link set eth0 master br0", cnierr.AlreadyAttached, "interface eth0 has already a master set: br0"},
		{"no interface", `"vrfname":"blue"`, "link del eth0", cnierr.Internal, "could not get link by name eth0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			for words := range strings.SplitSeq(tc.make, ";") {
				bed.SandboxIP(strings.Fields(words)...)
			}
			if msg := bed.Fails(plugin.Add, newCall(tc.keys), tc.code); !strings.Contains(msg, tc.want) {
				t.Error(msg)
			}
			bed.Must(plugin.Del, newCall(tc.keys))
		})
	}
	t.Run("no prevResult", func(t *testing.T) {
		bed := nltest.New(t)
		c := newCall("")
		c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"vrf","vrfname":"blue"}`
		if msg := bed.Fails(plugin.Add, c, cnierr.InvalidConfig); !strings.Contains(msg, "missing prevResult from earlier plugin") {
			t.Error(msg)
		}
	})
	t.Run("another table", func(t *testing.T) {
		bed := newBed(t)
		bed.SandboxIP("link", "add", "blue", "type", "vrf", "table", "55")
		if msg := bed.Fails(plugin.Add, newCall(`"vrfname":"blue","table":4000`), cnierr.InvalidConfig); !strings.Contains(msg, "VRF blue already exist with different routing table 55") {
			t.Error(msg)
		}
	})
}

func TestTwoInterfacesShareAVRF(t *testing.T) {
	bed := newBed(t)
	first, second := newCall(`"vrfname":"blue"`), newCall(`"vrfname":"blue"`)
	second.IfName = "eth1"
	bed.Must(plugin.Add, first)
	bed.Must(plugin.Add, second)
	bed.Must(plugin.Check, first)
	bed.Must(plugin.Del, first)
	bed.Must(plugin.Check, second)
	bed.Must(plugin.Del, second)
	var there bool
	bed.In(bed.Sandbox, func() { _, there = bed.Try("ip", "link", "show", "blue") })
	if there {
		t.Error("the last DEL left the VRF")
	}
}

// TestAtOnce has both interfaces join and leave one VRF at the same time.
func TestAtOnce(t *testing.T) {
	bed := newBed(t)
	for range 5 {
		for _, verb := range []string{plugin.Add, plugin.Del} {
			var wg sync.WaitGroup
			answers := make([]nltest.Answer, 2)
			for i, name := range []string{"eth0", "eth1"} {
				c := newCall(`"vrfname":"blue"`)
				c.IfName = name
				wg.Go(func() { answers[i] = bed.Do(verb, c) })
			}
			wg.Wait()
			for _, a := range answers {
				if a.Exit != 0 {
					t.Fatalf("%s: %s%s", verb, a.Stdout, a.Stderr)
				}
			}
		}
		var there bool
		bed.In(bed.Sandbox, func() { _, there = bed.Try("ip", "link", "show", "blue") })
		if there {
			t.Fatal("the VRF stays")
		}
	}
}

func TestSomebodysVRFStays(t *testing.T) {
	bed := newBed(t)
	bed.SandboxIP("link", "add", "blue", "type", "vrf", "table", "55")
	c := newCall(`"vrfname":"blue"`)
	bed.Must(plugin.Add, c)
	bed.Must(plugin.Check, c)
	bed.Must(plugin.Del, c)
	bed.SandboxIP("link", "show", "blue")
}

func TestDelWithout(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*nltest.Bed, *nltest.Call)
	}{
		{"prevResult and keys", func(_ *nltest.Bed, c *nltest.Call) { c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"vrf"}` }},
		{"CNI_NETNS", func(_ *nltest.Bed, c *nltest.Call) { c.Netns = nltest.NoNetns }},
		{"the sandbox", func(_ *nltest.Bed, c *nltest.Call) { c.Netns = "/nowhere" }},
		{"the link", func(b *nltest.Bed, _ *nltest.Call) { b.SandboxIP("link", "del", "eth0") }},
		{"the link up", func(b *nltest.Bed, _ *nltest.Call) { b.SandboxIP("link", "set", "eth0", "down") }},
		{"the link in it", func(b *nltest.Bed, _ *nltest.Call) { b.SandboxIP("link", "set", "eth0", "nomaster") }},
		{"the VRF", func(b *nltest.Bed, _ *nltest.Call) { b.SandboxIP("link", "del", "blue") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bed := newBed(t)
			c := newCall(`"vrfname":"blue"`)
			bed.Must(plugin.Add, c)
			tc.spoil(bed, &c)
			bed.Must(plugin.Del, c)
			var there bool
			bed.In(bed.Sandbox, func() { _, there = bed.Try("ip", "link", "show", "blue") })
			if there && c.Netns == "" {
				t.Error("the VRF stays")
			}
			if left, _ := filepath.Glob(filepath.Join(string(bed.Journal()), "*", "*")); len(left) > 0 {
				t.Errorf("left behind: %s", left)
			}
		})
	}
	t.Run("anything", func(t *testing.T) {
		bed := nltest.New(t)
		bed.Must(plugin.Del, newCall(`"vrfname":"blue"`))
		c := newCall(`"vrfname":7`)
		c.Netns = nltest.NoNetns
		bed.Must(plugin.Del, c)
	})
}

func TestCheckNotices(t *testing.T) {
	for _, change := range []string{
		"link set eth0 nomaster", "link del eth0", "link del blue", "route del default table 4000", "-6 route del default table 4000",
		"link del blue; link add blue type vrf table 4001; link set eth0 master blue",
	} {
		t.Run(change, func(t *testing.T) {
			bed := newBed(t)
			c := newCall(`"vrfname":"blue","table":4000`)
			bed.Must(plugin.Add, c)
			bed.Must(plugin.Check, c)
			for words := range strings.SplitSeq(change, ";") {
				bed.SandboxIP(strings.Fields(words)...)
			}
			bed.Fails(plugin.Check, c, cnierr.CheckFailed)
		})
	}
}

func TestGC(t *testing.T) {
	bed := newBed(t)
	before := snapshot(bed)
	c := newCall(`"vrfname":"blue"`)
	bed.Must(plugin.Add, c)
	gc := c
	gc.Conf = `{"cniVersion":"1.1.0","name":"net","type":"vrf","vrfname":"blue","cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}`
	bed.Must(plugin.GC, gc)
	bed.Must(plugin.Check, c)
	gc.Conf = `{"cniVersion":"1.1.0","name":"net","type":"vrf","vrfname":"blue","cni.dev/valid-attachments":[]}`
	bed.Must(plugin.GC, gc)
	if after := snapshot(bed); after != before {
		t.Errorf("GC left\n%s\nwhere there was\n%s", after, before)
	}
}

// TestDelInALeasedSandbox has lost the record and prevResult: the lease of the
// interface's address says that it is another container's.
func TestDelInALeasedSandbox(t *testing.T) {
	bed := newBed(t)
	bed.SandboxIP("link", "add", "blue", "type", "vrf", "table", "1")
	bed.SandboxIP("link", "set", "eth0", "master", "blue")
	bed.SandboxIP("addr", "add", "10.1.0.5/16", "dev", "eth0")
	c := newCall(`"vrfname":"blue"`)
	c.Conf = fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","type":"vrf","vrfname":"blue","ipam":{"dataDir":%q}}`, bed.Lease("10.1.0.5", "c2"))
	bed.Must(plugin.Del, c)
	if out := bed.SandboxIP("link", "show", "eth0"); !strings.Contains(out, "master blue") {
		t.Errorf("another container's interface was taken out:\n%s", out)
	}
}

// TestAttachedByTheReference has its VRF and no record.
func TestAttachedByTheReference(t *testing.T) {
	bed := newBed(t)
	bed.SandboxIP("link", "add", "blue", "type", "vrf", "table", "1")
	bed.SandboxIP("link", "set", "blue", "up")
	bed.SandboxIP("link", "set", "eth0", "master", "blue")
	c := newCall(`"vrfname":"blue"`)
	bed.Must(plugin.Check, c)
	bed.Fails(plugin.Add, c, cnierr.AlreadyAttached)
	bed.Must(plugin.Del, c)
	if out := bed.SandboxIP("link"); strings.Contains(out, "blue") {
		t.Errorf("left:\n%s", out)
	}
}
