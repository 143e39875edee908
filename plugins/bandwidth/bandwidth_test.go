package bandwidth

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

const both = `"ingressRate":8000000,"ingressBurst":800000,"egressRate":16000000,"egressBurst":1600000`

func conf(version, keys string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"name":"net","type":"bandwidth",%s,"prevResult":{"cniVersion":%q,"interfaces":[{"name":"vh0","mac":"02:00:00:00:00:01"},{"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/x"}]}}`, version, keys, version)
}

// prepare makes a veth pair with addresses, as bridge or ptp would. Links of the host before it keep the two ends' indexes apart.
func prepare(bed *nltest.Bed) {
	for i := range 3 {
		bed.IP("link", "add", fmt.Sprintf("other%d", i), "type", "ifb")
	}
	bed.IP("link", "add", "vh0", "mtu", "1480", "type", "veth", "peer", "name", "eth0", "netns", bed.Path)
	bed.IP("addr", "add", "10.1.2.1/24", "dev", "vh0")
	bed.IP("link", "set", "vh0", "up")
	bed.SandboxIP("addr", "add", "10.1.2.2/24", "dev", "eth0")
	bed.SandboxIP("link", "set", "eth0", "up")
}

func newCall(keys string) nltest.Call {
	return nltest.Call{Table: plugin.Table{"bandwidth": Plugin}, Plugin: "bandwidth", Conf: conf("1.1.0", keys)}
}

// The ifb device's name for network net, container c1: the reference's, and where
// that is taken the one for interface eth0.
var ours, second = hashedName("netc1"), hashedName("net\x00c1\x00eth0")

func TestLifecycle(t *testing.T) {
	for _, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for name, keys := range map[string]string{
			"both": both, "ingress": `"ingressRate":8000000,"ingressBurst":800000`, "egress": `"egressRate":8000000,"egressBurst":800000`,
			"shaped":   both + `,"shapedSubnets":["10.0.0.0/8","fd00::/64","0.0.0.0/0"]`,
			"unshaped": both + `,"unshapedSubnets":["10.0.0.0/8","fd00:0:0:1::/61","192.168.7.0/25"]`,
			"runtime":  `"runtimeConfig":{"bandwidth":{"ingressRate":1000000,"ingressBurst":4294967295,"egressRate":1000000,"egressBurst":4294967295}}`,
			"fast":     `"ingressRate":80000000000,"ingressBurst":8000000000,"egressRate":80000000000,"egressBurst":8000000000`,
			"fast htb": `"ingressRate":80000000000,"ingressBurst":8000000000,"shapedSubnets":["::/0"]`,
			"long":     `"ingressRate":1000000,"ingressBurst":100000000,"egressRate":1000000,"egressBurst":100000000`,
		} {
			t.Run(version+" "+name, func(t *testing.T) {
				bed := nltest.New(t)
				prepare(bed)
				before := bed.Snapshot()
				c := newCall(keys)
				c.Conf = conf(version, keys)

				res := bed.Must(plugin.Add, c)
				want := 3
				if !strings.Contains(keys, "egress") {
					want = 2
				}
				if len(res.Interfaces) != want || want == 3 && (res.Interfaces[2].Name != ours || len(res.Interfaces[2].Mac) != 17) {
					t.Errorf("interfaces %+v", res.Interfaces)
				}
				shaped := bed.Snapshot()
				bed.Fails(plugin.Add, c, cnierr.AlreadyAttached)
				if got := bed.Snapshot(); got != shaped {
					t.Errorf("a second ADD left\n%s\nwhere there was\n%s", got, shaped)
				}
				if semver.AtLeast(version, "0.4.0") {
					bed.Must(plugin.Check, c)
				}
				bed.Must(plugin.Del, c)
				bed.Must(plugin.Del, c)
				if after := bed.Snapshot(); after != before {
					t.Errorf("DEL left\n%s\nwhere there was\n%s", after, before)
				}
			})
		}
	}
}

func TestNoTrace(t *testing.T) {
	t.Run("tbf", func(t *testing.T) { nltest.NoTrace(t, newCall(both), prepare) })
	t.Run("htb", func(t *testing.T) {
		nltest.NoTrace(t, newCall(both+`,"shapedSubnets":["10.0.0.0/8","fd00::/64"]`), prepare)
	})
}

// TestNothingToDo proves that no namespace is opened and nothing is recorded: the
// sandbox does not exist.
func TestNothingToDo(t *testing.T) {
	bed := nltest.New(t)
	before := bed.Snapshot()
	c := newCall(`"runtimeConfig":{}`)
	c.Netns = "/nowhere"
	if res := bed.Must(plugin.Add, c); len(res.Interfaces) != 2 {
		t.Errorf("prevResult is not passed on: %+v", res)
	}
	bed.Must(plugin.Check, c)
	bed.Must(plugin.Del, c)
	if after := bed.Snapshot(); after != before {
		t.Errorf("left:\n%s", after)
	}
	c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"bandwidth"}`
	if msg := bed.Fails(plugin.Add, c, cnierr.InvalidConfig); !strings.Contains(msg, "must be called as chained plugin") {
		t.Error(msg)
	}
}

func TestDelWithout(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*nltest.Bed, *nltest.Call)
	}{
		{"prevResult and limits", func(_ *nltest.Bed, c *nltest.Call) {
			c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"bandwidth"}`
		}},
		{"a right configuration", func(_ *nltest.Bed, c *nltest.Call) {
			c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"bandwidth","ingressRate":"x","egressRate":1}`
		}},
		{"CNI_NETNS", func(_ *nltest.Bed, c *nltest.Call) { c.Netns = nltest.NoNetns }},
		{"the sandbox", func(_ *nltest.Bed, c *nltest.Call) { c.Netns = "/nowhere" }},
		{"the pair", func(b *nltest.Bed, _ *nltest.Call) { b.IP("link", "del", "vh0") }},
		{"the ifb device", func(b *nltest.Bed, _ *nltest.Call) { b.IP("link", "del", ours) }},
		{"the qdiscs", func(b *nltest.Bed, _ *nltest.Call) {
			b.Run("tc", "qdisc", "del", "dev", "vh0", "root")
			b.Run("tc", "qdisc", "del", "dev", "vh0", "ingress")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			c := newCall(both)
			bed.Must(plugin.Add, c)
			tc.spoil(bed, &c)
			bed.Must(plugin.Del, c)
			after := bed.Snapshot()
			for _, left := range []string{"bwp", "tbf", "ingress", "journal"} {
				if strings.Contains(after, left) {
					t.Errorf("%s left behind:\n%s", left, after)
				}
			}
		})
	}
}

func TestDelLeavesOthersAlone(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	bed.Must(plugin.Add, newCall(both))
	bed.IP("link", "del", "vh0")
	bed.IP("link", "add", "vh0", "type", "veth", "peer", "name", "vh1")
	bed.Run("tc", "qdisc", "add", "dev", "vh0", "root", "handle", "1:", "tbf", "rate", "1mbit", "burst", "5kb", "latency", "25ms")
	bed.Must(plugin.Del, newCall(both))
	if out := bed.Run("tc", "qdisc", "show", "dev", "vh0"); !strings.Contains(out, "tbf") {
		t.Errorf("another link lost its qdisc: %s", out)
	}
}

func TestGC(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	before := bed.Snapshot()
	bed.Must(plugin.Add, newCall(both))
	gc := newCall(both)
	gc.Conf = `{"cniVersion":"1.1.0","name":"net","type":"bandwidth","cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}`
	bed.Must(plugin.GC, gc)
	bed.Must(plugin.Check, newCall(both))
	gc.Conf = `{"cniVersion":"1.1.0","name":"other","type":"bandwidth","cni.dev/valid-attachments":null}`
	bed.Must(plugin.GC, gc)
	bed.Must(plugin.Check, newCall(both))
	gc.Conf = `{"cniVersion":"1.1.0","name":"net","type":"bandwidth","cni.dev/valid-attachments":null}`
	bed.Must(plugin.GC, gc)
	if after := bed.Snapshot(); after != before {
		t.Errorf("GC left\n%s\nwhere there was\n%s", after, before)
	}
}

func TestCheckNotices(t *testing.T) {
	const htb = both + `,"shapedSubnets":["10.0.0.0/8","fd00::/64"]`
	replace := func(dev, rate, burst, latency string) []string {
		return []string{"tc", "qdisc", "replace", "dev", dev, "root", "handle", "1:", "tbf", "rate", rate, "burst", burst, "latency", latency}
	}
	for _, tc := range []struct {
		name, keys string
		change     []string
	}{
		{"no qdisc on the host's end", both, []string{"tc", "qdisc", "del", "dev", "vh0", "root"}},
		{"no qdisc on the ifb device", both, []string{"tc", "qdisc", "del", "dev", ours, "root"}},
		{"no redirection", both, []string{"tc", "qdisc", "del", "dev", "vh0", "ingress"}},
		{"no filter", both, []string{"tc", "filter", "del", "dev", "vh0", "parent", "ffff:"}},
		{"no ifb device", both, []string{"ip", "link", "del", ours}},
		{"ifb device down", both, []string{"ip", "link", "set", ours, "down"}},
		{"other rate", both, replace("vh0", "9mbit", "100000", "25ms")},
		{"other burst", both, replace("vh0", "8mbit", "99000", "25ms")},
		{"other latency", both, replace("vh0", "8mbit", "100000", "50ms")},
		{"other rate on the ifb device", both, replace(ours, "9mbit", "200000", "25ms")},
		{"htb: no qdisc", htb, []string{"tc", "qdisc", "del", "dev", "vh0", "root"}},
		{"htb: other class", htb, []string{"tc", "class", "change", "dev", "vh0", "parent", "1:", "classid", "1:30", "htb", "rate", "9mbit", "burst", "100000"}},
		{"htb: no IPv4 filter", htb, []string{"tc", "filter", "del", "dev", "vh0", "parent", "1:", "prio", "16"}},
		{"htb: no IPv6 filter", htb, []string{"tc", "filter", "del", "dev", ours, "parent", "1:", "prio", "15"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			bed.Must(plugin.Add, newCall(tc.keys))
			bed.Must(plugin.Check, newCall(tc.keys))
			bed.Run(tc.change[0], tc.change[1:]...)
			bed.Fails(plugin.Check, newCall(tc.keys), cnierr.CheckFailed)
		})
	}
}

// TestOtherKinds: only what has an end on the host can be limited there.
func TestOtherKinds(t *testing.T) {
	for name, add := range map[string][]string{
		"ifb":              {"link", "add", "eth0", "type", "ifb"},
		"pair within":      {"link", "add", "eth0", "type", "veth", "peer", "name", "peer0"},
		"macvlan, sandbox": {"link", "add", "link", "lower", "name", "eth0", "type", "macvlan"},
	} {
		t.Run(name, func(t *testing.T) {
			bed := nltest.New(t)
			bed.SandboxIP("link", "add", "lower", "type", "veth", "peer", "name", "lower1")
			bed.SandboxIP(add...)
			before := bed.Snapshot()
			bed.Fails(plugin.Add, newCall(both), cnierr.UnsupportedField)
			if after := bed.Snapshot(); after != before {
				t.Errorf("left\n%s\nwhere there was\n%s", after, before)
			}
		})
	}
}

// TestForeignQdiscStays has somebody's qdisc where one would be added.
func TestForeignQdiscStays(t *testing.T) {
	for _, args := range [][]string{
		{"qdisc", "add", "dev", "vh0", "root", "handle", "1:", "tbf", "rate", "1mbit", "burst", "5kb", "latency", "25ms"},
		{"qdisc", "add", "dev", "vh0", "ingress"},
		{"qdisc", "add", "dev", "vh0", "clsact"},
	} {
		t.Run(args[4], func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			bed.Run("tc", args...)
			before := bed.Snapshot()
			bed.Fails(plugin.Add, newCall(both), cnierr.AlreadyAttached)
			if after := bed.Snapshot(); after != before {
				t.Errorf("left\n%s\nwhere there was\n%s", after, before)
			}
		})
	}
}

// TestAForeignQdiscBesideStays has one where nothing is to be added.
func TestAForeignQdiscBesideStays(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	bed.Run("tc", "qdisc", "add", "dev", "vh0", "root", "handle", "1:", "tbf", "rate", "1mbit", "burst", "5kb", "latency", "25ms")
	before := bed.Snapshot()
	c := newCall(`"egressRate":8000000,"egressBurst":800000`)
	c.Gate = (&nltest.Faults{At: 4}).Gate
	bed.Fails(plugin.Add, c, cnierr.Internal)
	if after := bed.Snapshot(); after != before {
		t.Errorf("a failed ADD left\n%s\nwhere there was\n%s", after, before)
	}
	c.Gate = nil
	bed.Must(plugin.Add, c)
	bed.Must(plugin.Del, c)
	if after := bed.Snapshot(); after != before {
		t.Errorf("DEL left\n%s\nwhere there was\n%s", after, before)
	}
}

// TestAttachedByTheReference rebuilds what the reference makes, with its name.
func TestAttachedByTheReference(t *testing.T) {
	theirs := ours
	made := func(bed *nltest.Bed) {
		prepare(bed)
		tbf := func(dev, rate, burst string) {
			bed.Run("tc", "qdisc", "add", "dev", dev, "root", "handle", "1:", "tbf", "rate", rate, "burst", burst, "latency", "25ms")
		}
		tbf("vh0", "8mbit", "100000")
		bed.IP("link", "add", theirs, "mtu", "1480", "txqueuelen", "0", "type", "ifb")
		bed.IP("link", "set", theirs, "up")
		bed.Run("tc", "qdisc", "add", "dev", "vh0", "ingress")
		bed.Run("tc", "filter", "add", "dev", "vh0", "parent", "ffff:", "protocol", "all", "prio", "1", "u32", "match", "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", theirs)
		tbf(theirs, "16mbit", "200000")
	}
	t.Run("CHECK, DEL", func(t *testing.T) {
		bed := nltest.New(t)
		made(bed)
		bed.Must(plugin.Check, newCall(both))
		bed.Run("tc", "qdisc", "del", "dev", theirs, "root")
		bed.Fails(plugin.Check, newCall(both), cnierr.CheckFailed)
		c := newCall(both)
		c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"bandwidth"}`
		c.Netns = nltest.NoNetns
		bed.Must(plugin.Del, c)
		if out, there := bed.Try("ip", "link", "show", theirs); there {
			t.Errorf("the ifb device stays:\n%s", out)
		}
	})
	t.Run("an ambiguous name is not taken from another", func(t *testing.T) {
		bed := nltest.New(t)
		made(bed)
		c := newCall(both) // its prevResult has no ifb device
		c.ContainerID, c.Conf = "tc1", strings.Replace(c.Conf, `"name":"net"`, `"name":"ne"`, 1)
		bed.Must(plugin.Del, c)
		bed.IP("link", "show", theirs)
	})
}

// TestOneContainersInterfacesDoNotCollide has two on one network, which the
// reference gives one ifb device.
func TestOneContainersInterfacesDoNotCollide(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	bed.IP("link", "add", "vh1", "type", "veth", "peer", "name", "eth1", "netns", bed.Path)
	first, other := newCall(both), newCall(both)
	other.IfName = "eth1"
	bed.Must(plugin.Add, other)
	if res := bed.Must(plugin.Add, first); res.Interfaces[2].Name != second {
		t.Errorf("ifb device %s, want %s", res.Interfaces[2].Name, second)
	}
	bed.Must(plugin.Check, first)
	bed.Must(plugin.Del, first)
	bed.Must(plugin.Del, first)
	bed.Must(plugin.Check, other)
	bed.Must(plugin.Add, first)
	bed.Must(plugin.Del, other)
	bed.Must(plugin.Check, first)
}

// TestAnAmbiguousNameIsNotShared has "ab" and "c", and "a" and "bc". The record of
// neither is there when the other's DEL comes.
func TestAnAmbiguousNameIsNotShared(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	c := newCall(both)
	bed.Must(plugin.Add, c)
	c.ContainerID, c.Conf = "tc1", `{"cniVersion":"1.1.0","name":"ne","type":"bandwidth"}`
	bed.Must(plugin.Del, c)
	bed.Must(plugin.Check, newCall(both))
}

// TestTheNameIsTakenMeanwhile refuses the first device as the kernel does where
// another call has just made one.
func TestTheNameIsTakenMeanwhile(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	before := bed.Snapshot()
	made := false
	c := newCall(both)
	c.Gate = func(what string) error {
		if strings.HasPrefix(what, "create ifb") && !made {
			made = true
			bed.IP("link", "add", ours, "type", "ifb")
		}
		return nil
	}
	if res := bed.Must(plugin.Add, c); res.Interfaces[2].Name != second {
		t.Errorf("ifb device %s, want %s", res.Interfaces[2].Name, second)
	}
	bed.Must(plugin.Check, newCall(both))
	bed.Must(plugin.Del, newCall(both))
	bed.IP("link", "del", ours)
	if after := bed.Snapshot(); after != before {
		t.Errorf("DEL left\n%s\nwhere there was\n%s", after, before)
	}
}

func TestALostRecordsDeviceIsReplaced(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	bed.IP("link", "add", ours, "type", "ifb")
	bed.IP("link", "set", ours, "alias", "netcleat net c1 eth0")
	bed.Must(plugin.Add, newCall(both))
	bed.Must(plugin.Check, newCall(both))
}

func TestATinyBurstLetsPacketsPass(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	c := newCall(`"ingressRate":8000000,"ingressBurst":456,"egressRate":8000000,"egressBurst":456`)
	if a := bed.Do(plugin.Add, c); a.Exit != 0 || !strings.Contains(a.Stderr, "raised to 1494") {
		t.Errorf("%s%s", a.Stdout, a.Stderr)
	}
	bed.Must(plugin.Check, c)
	bed.In(bed.Sandbox, func() { bed.Run("ping", "-c1", "-W5", "-s1400", "10.1.2.1") })
}

// TestRates measures with iperf3. Its figure is of payload: a full Ethernet
// frame has 1448 bytes of it in 1514, so the limit gives 95.6 % at best.
func TestRates(t *testing.T) {
	if _, err := exec.LookPath("iperf3"); err != nil {
		t.Skip("needs iperf3")
	}
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	const rate, payload = 100e6, 1428.0 / 1494 // at the pair's mtu of 1480
	limits := fmt.Sprintf(`"runtimeConfig":{"bandwidth":{"ingressRate":%.0f,"ingressBurst":4294967295,"egressRate":%.0f,"egressBurst":4294967295}}`, rate, rate)
	for _, tc := range []struct {
		name, keys, peer string
		reverse, limited bool
	}{
		{"egress IPv4", limits, "10.1.2.1", false, true},
		{"ingress IPv4", limits, "10.1.2.1", true, true},
		{"egress IPv6", limits, "fd00::1", false, true},
		{"shaped subnet, egress", limits + `,"shapedSubnets":["10.1.2.1/32"]`, "10.1.2.1", false, true},
		{"shaped subnet, ingress", limits + `,"shapedSubnets":["10.1.2.1/32"]`, "10.1.2.1", true, true},
		{"shaped subnet, other peer", limits + `,"shapedSubnets":["10.9.0.0/16"]`, "10.1.2.1", true, false},
		{"unshaped subnet, egress", limits + `,"unshapedSubnets":["fd00::1/128"]`, "fd00::1", false, false},
		{"unshaped subnet, other peer", limits + `,"unshapedSubnets":["10.1.2.2/32"]`, "10.1.2.1", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			bed.IP("addr", "add", "fd00::1/64", "dev", "vh0", "nodad")
			bed.SandboxIP("addr", "add", "fd00::2/64", "dev", "eth0", "nodad")
			bed.Must(plugin.Add, newCall(tc.keys))
			got := measure(t, bed, tc.peer, tc.reverse) / (rate * payload)
			t.Logf("%.4f of the rate", got)
			if tc.limited && (got < 0.95 || got > 1.05) {
				t.Errorf("%.3f of the rate that is configured", got)
			}
			if !tc.limited && got < 3 {
				t.Errorf("%.3f of the rate: limited, though its peer is not", got)
			}
		})
	}
}

// measure returns the bits a second that arrive, as frames at the rate would
// carry them.
func measure(t *testing.T, bed *nltest.Bed, peer string, reverse bool) float64 {
	t.Helper()
	server := exec.Command("iperf3", "-s", "-1", "-B", peer, "--forceflush")
	out, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	buf := make([]byte, 4096)
	if _, err := out.Read(buf); err != nil { // it says that it listens
		t.Fatal(err)
	}
	args := []string{"-c", peer, "-J", "-t", "2", "-O", "1"}
	if reverse {
		args = append(args, "-R")
	}
	var text string
	start := time.Now()
	bed.In(bed.Sandbox, func() { text = bed.Run("iperf3", args...) })
	var report struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatalf("%v after %v:\n%s", err, time.Since(start), text)
	}
	return report.End.Received.Rate
}

// Network and container ID may be so long that the alias has to be cut.
func TestLongNames(t *testing.T) {
	long := strings.Repeat("x", 251)
	bed := nltest.New(t)
	prepare(bed)
	before := bed.Snapshot()
	c := newCall(both)
	c.ContainerID, c.Conf = long, strings.Replace(c.Conf, `"name":"net"`, `"name":"`+long+`"`, 1)
	bed.Must(plugin.Add, c)
	bed.Must(plugin.Check, c)
	bed.Must(plugin.Del, c)
	if after := bed.Snapshot(); after != before {
		t.Errorf("DEL left\n%s\nwhere there was\n%s", after, before)
	}
}

// A record that was made in another network namespace, or in an earlier boot, names
// links that are others' here.
func TestDelElsewhere(t *testing.T) {
	for what, change := range nltest.Elsewhere {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			bed.Must(plugin.Add, newCall(both))
			change(bed)
			bed.Must(plugin.Del, newCall(both))
			if out := bed.Run("tc", "qdisc", "show", "dev", "vh0"); !strings.Contains(out, "tbf") || !strings.Contains(out, "ingress") {
				t.Errorf("a link of this host lost its limits: %s", out)
			}
			bed.IP("link", "show", ours)
		})
	}
}
