package tuning

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

const (
	original = "c2:11:22:33:44:55"
	all      = `"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"01","net.ipv4.tcp_rmem":"4096  50000 100000"},"mac":"C2:11:22:33:44:66","mtu":1400,"promisc":true,"allmulti":true,"txQLen":77`
)

// conf is a configuration with a prevResult as a main plugin leaves it.
func conf(version, keys string) string {
	if !semver.AtLeast(version, "0.3.0") {
		return fmt.Sprintf(`{"cniVersion":%q,"name":"net","type":"tuning","dataDir":"DATADIR/tuning",%s,"prevResult":{"cniVersion":%q,"ip4":{"ip":"10.0.0.2/24"}}}`, version, keys, version)
	}
	return fmt.Sprintf(`{"cniVersion":%q,"name":"net","type":"tuning","dataDir":"DATADIR/tuning",%s,"prevResult":{"cniVersion":%q,"interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01"},{"name":"eth0","mac":%q,"sandbox":"/run/netns/x"}]}}`, version, keys, version, original)
}

func prepare(bed *nltest.Bed) {
	bed.SandboxIP("link", "add", "eth0", "address", original, "type", "veth", "peer", "name", "peer0")
	bed.SandboxIP("link", "set", "eth0", "up")
}

func newCall(keys string) nltest.Call {
	return nltest.Call{Table: plugin.Table{"tuning": Plugin}, Plugin: "tuning", Conf: conf("1.1.0", keys)}
}

func get(t *testing.T, bed *nltest.Bed, key string) string {
	t.Helper()
	v, err := sysctl.Get(bed.Sandbox, key)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(v), " ")
}

func setSysctl(t *testing.T, bed *nltest.Bed, key, value string) {
	t.Helper()
	if err := sysctl.Set(bed.Sandbox, nil, sysctl.Setting{Key: key, Value: value}); err != nil {
		t.Fatal(err)
	}
}

func TestLifecycle(t *testing.T) {
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			before, rmem := bed.Snapshot(), get(t, bed, "net/ipv4/tcp_rmem")
			c := newCall(all)
			c.Conf = conf(version, all)

			for range 2 { // the second must not take tuned values for original ones
				res := bed.Must(plugin.Add, c)
				if semver.AtLeast(version, "0.3.0") && (res.Interfaces[1].Mac != "c2:11:22:33:44:66" || res.Interfaces[0].Mac != "02:00:00:00:00:01") {
					t.Errorf("result %+v %+v", res.Interfaces[0], res.Interfaces[1])
				}
				if version == "1.1.0" && res.Interfaces[1].Mtu != 1400 {
					t.Errorf("mtu %d in the result, want 1400", res.Interfaces[1].Mtu)
				}
			}
			link := bed.SandboxIP("-d", "link", "show", "eth0")
			for _, want := range []string{"c2:11:22:33:44:66", "mtu 1400", "PROMISC", "ALLMULTI", "qlen 77"} {
				if !strings.Contains(link, want) {
					t.Errorf("link lacks %q:\n%s", want, link)
				}
			}
			if v := get(t, bed, "net/ipv4/conf/eth0/arp_filter"); v != "1" {
				t.Errorf("arp_filter %s", v)
			}
			if semver.AtLeast(version, "0.4.0") {
				bed.Must(plugin.Check, c)
			}
			bed.Must(plugin.Del, c)
			bed.Must(plugin.Del, c)
			if after := bed.Snapshot(); after != before {
				t.Errorf("DEL left\n%s\nwhere there was\n%s", after, before)
			}
			if v := get(t, bed, "net/ipv4/conf/eth0/arp_filter"); v != "0" {
				t.Errorf("arp_filter %s after DEL, want 0", v)
			}
			if v := get(t, bed, "net/ipv4/tcp_rmem"); v != rmem {
				t.Errorf("tcp_rmem %s after DEL, want %s", v, rmem)
			}
		})
	}
}

func TestNoTrace(t *testing.T) {
	nltest.NoTrace(t, newCall(all), prepare)
}

func TestSysctlsOfAFailedAddAreSetBack(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	c := newCall(`"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"},"mtu":1400`)
	c.Gate = (&nltest.Faults{At: 2}).Gate
	bed.Fails(plugin.Add, c, cnierr.Internal)
	if v := get(t, bed, "net/ipv4/conf/eth0/arp_filter"); v != "0" {
		t.Errorf("arp_filter %s, want 0", v)
	}
}

// TestNothingToDo proves that no namespace is opened and nothing is recorded: the
// sandbox does not exist.
func TestNothingToDo(t *testing.T) {
	bed := nltest.New(t)
	c := newCall(`"sysctl":{}`)
	c.Netns = "/nowhere"
	res := bed.Must(plugin.Add, c)
	if len(res.Interfaces) != 2 || res.Interfaces[1].Mac != original {
		t.Errorf("prevResult is not passed on: %+v", res)
	}
	if _, err := os.Stat(string(bed.Journal())); err == nil {
		t.Error("something was recorded")
	}
	bed.Must(plugin.Check, c)
	bed.Must(plugin.Del, c)
	c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"tuning"}`
	bed.Fails(plugin.Add, c, cnierr.InvalidConfig)
}

// TestDelWithout runs DEL with parts of what ADD had missing. Whatever is left
// of the sandbox must be as before, and nothing on the host.
func TestDelWithout(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*nltest.Bed, *nltest.Call)
	}{
		{"prevResult and keys", func(_ *nltest.Bed, c *nltest.Call) {
			c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"tuning"}`
		}},
		{"a right configuration", func(_ *nltest.Bed, c *nltest.Call) {
			c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"tuning","mtu":"x","sysctl":7}`
		}},
		{"CNI_NETNS", func(_ *nltest.Bed, c *nltest.Call) { c.Netns = nltest.NoNetns }},
		{"the sandbox", func(_ *nltest.Bed, c *nltest.Call) { c.Netns = "/nowhere" }},
		{"the link", func(b *nltest.Bed, _ *nltest.Call) { b.SandboxIP("link", "del", "eth0") }},
		{"the link, another has its name", func(b *nltest.Bed, _ *nltest.Call) {
			b.SandboxIP("link", "del", "eth0")
			b.SandboxIP("link", "add", "eth0", "mtu", "1234", "type", "veth", "peer", "name", "peer0")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			c := newCall(all)
			bed.Must(plugin.Add, c)
			tc.spoil(bed, &c)
			bed.Must(plugin.Del, c)
			for _, dir := range []string{"tuning", "journal"} {
				if left := files(t, filepath.Join(bed.Dir, dir)); len(left) > 0 {
					t.Errorf("left behind: %s", left)
				}
			}
			out, there := bed.Try("true")
			bed.In(bed.Sandbox, func() { out, there = bed.Try("ip", "link", "show", "eth0") })
			if there && strings.Contains(out, "mtu 1400") && c.Netns == "" {
				t.Errorf("not set back:\n%s", out)
			}
			if strings.Contains(tc.name, "another") && !strings.Contains(out, "mtu 1234") {
				t.Errorf("another link was changed:\n%s", out)
			}
		})
	}
}

func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			all = append(all, path)
		}
		return nil
	})
	return all
}

func TestDelLeavesAnotherContainersSandboxAlone(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	bed.Must(plugin.Add, newCall(`"mtu":1400`))
	other := bed.NewSandbox()
	bed.In(other, func() { bed.IP("link", "add", "eth0", "mtu", "1234", "type", "veth", "peer", "name", "p") })
	c := newCall(`"mtu":1400`)
	c.Netns = bed.PathOf(other)
	bed.Must(plugin.Del, c)
	bed.In(other, func() {
		if out := bed.IP("link", "show", "eth0"); !strings.Contains(out, "mtu 1234") {
			t.Errorf("changed:\n%s", out)
		}
	})
}

func TestGC(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	before := bed.Snapshot()
	bed.Must(plugin.Add, newCall(all))
	gc := newCall(all)
	gc.Conf = `{"cniVersion":"1.1.0","name":"net","type":"tuning","cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}`
	bed.Must(plugin.GC, gc)
	bed.Must(plugin.Check, newCall(all))
	gc.Conf = `{"cniVersion":"1.1.0","name":"net","type":"tuning","cni.dev/valid-attachments":[]}`
	bed.Must(plugin.GC, gc)
	if after := bed.Snapshot(); after != before {
		t.Errorf("GC left\n%s\nwhere there was\n%s", after, before)
	}
}

func TestCheckNotices(t *testing.T) {
	for _, change := range [][]string{
		{"mtu", "1300"}, {"promisc", "off"}, {"allmulticast", "off"}, {"txqueuelen", "9"}, {"address", "c2:11:22:33:44:77"}, {"name", "eth9"},
	} {
		t.Run(change[0], func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			bed.Must(plugin.Add, newCall(all))
			bed.SandboxIP("link", "set", "eth0", "down") // for the new name
			bed.SandboxIP(append([]string{"link", "set", "eth0"}, change...)...)
			bed.Fails(plugin.Check, newCall(all), cnierr.CheckFailed)
		})
	}
	t.Run("sysctl", func(t *testing.T) {
		bed := nltest.New(t)
		prepare(bed)
		bed.Must(plugin.Add, newCall(all))
		setSysctl(t, bed, "net/ipv4/tcp_rmem", "4096 50001 100000")
		bed.Fails(plugin.Check, newCall(all), cnierr.CheckFailed)
	})
}

func TestCheckAllowsWhatIsNotConfigured(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	c := newCall(`"mac":"C2:11:22:33:44:66"`)
	bed.Must(plugin.Add, c)
	bed.SandboxIP("link", "set", "eth0", "promisc", "on", "mtu", "1300")
	bed.Must(plugin.Check, c)
}

// TestTwiceInOneList has two tunings of one attachment, as a list may.
func TestTwiceInOneList(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	before := bed.Snapshot()
	first, second := newCall(`"mtu":1400,"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}`), newCall(`"mtu":1300,"promisc":true,"sysctl":{"net.ipv4.conf.IFNAME.arp_ignore":"1"}`)
	bed.Must(plugin.Add, first)
	after1 := bed.Snapshot()

	fails := second
	fails.Gate = (&nltest.Faults{At: 2}).Gate
	bed.Fails(plugin.Add, fails, cnierr.Internal)
	if got := bed.Snapshot(); got != after1 {
		t.Errorf("a failed second ADD left\n%s\nwhere there was\n%s", got, after1)
	}

	bed.Must(plugin.Add, second)
	bed.Must(plugin.Check, second)
	bed.Must(plugin.Del, second)
	bed.Must(plugin.Del, first)
	if after := bed.Snapshot(); after != before {
		t.Errorf("DEL left\n%s\nwhere there was\n%s", after, before)
	}
	for _, key := range []string{"arp_filter", "arp_ignore"} {
		if v := get(t, bed, "net/ipv4/conf/eth0/"+key); v != "0" {
			t.Errorf("%s is %s after DEL", key, v)
		}
	}
}

// TestBackupIsTheReferences compares with the bytes that the reference writes.
func TestBackupIsTheReferences(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	bed.Must(plugin.Add, newCall(all))
	b, err := os.ReadFile(filepath.Join(bed.Dir, "tuning", "c1_eth0.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := "{\n \"mac\": \"c2:11:22:33:44:55\",\n \"promisc\": false,\n \"mtu\": 1500,\n \"allmulti\": false,\n \"txQLen\": 1000\n}"
	if string(b) != want {
		t.Errorf("backup %s, want %s", b, want)
	}
}

// TestAttachedByTheReference has its backup file and no record.
func TestAttachedByTheReference(t *testing.T) {
	tuned := func(bed *nltest.Bed, backup string) {
		prepare(bed)
		bed.SandboxIP("link", "set", "eth0", "mtu", "1400", "txqueuelen", "77", "promisc", "on")
		_ = os.Mkdir(filepath.Join(bed.Dir, "tuning"), 0o700)
		_ = os.WriteFile(filepath.Join(bed.Dir, "tuning", "c1_eth0.json"), []byte(backup), 0o600)
	}
	const backup = "{\n \"promisc\": false,\n \"mtu\": 1500,\n \"txQLen\": 1000\n}"
	const keys = `"mtu":1400,"promisc":true,"txQLen":77`
	t.Run("DEL sets back", func(t *testing.T) {
		bed := nltest.New(t)
		tuned(bed, backup)
		bed.Must(plugin.Check, newCall(keys))
		bed.Must(plugin.Del, newCall(keys))
		out := bed.SandboxIP("link", "show", "eth0")
		if !strings.Contains(out, "mtu 1500") || !strings.Contains(out, "qlen 1000") || strings.Contains(out, "PROMISC") {
			t.Errorf("not set back:\n%s", out)
		}
		if left := files(t, bed.Dir); len(left) > 0 {
			t.Errorf("left behind: %s", left)
		}
	})
	t.Run("DEL leaves a later sandbox", func(t *testing.T) {
		bed := nltest.New(t)
		tuned(bed, backup)
		c := newCall(keys)
		c.Conf = strings.Replace(c.Conf, original, "02:00:00:00:00:99", 1)
		bed.Must(plugin.Del, c)
		if out := bed.SandboxIP("link", "show", "eth0"); !strings.Contains(out, "mtu 1400") {
			t.Errorf("set back:\n%s", out)
		}
	})
	t.Run("DEL leaves a sandbox that is another's by the lease", func(t *testing.T) {
		bed := nltest.New(t)
		tuned(bed, backup)
		bed.SandboxIP("addr", "add", "10.1.0.5/16", "dev", "eth0")
		c := newCall(keys)
		c.Conf = fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","type":"tuning","dataDir":%q,"ipam":{"dataDir":%q}}`, filepath.Join(bed.Dir, "tuning"), bed.Lease("10.1.0.5", "c2"))
		bed.Must(plugin.Del, c)
		if out := bed.SandboxIP("link", "show", "eth0"); !strings.Contains(out, "mtu 1400") {
			t.Errorf("set back:\n%s", out)
		}
	})
	t.Run("ADD does not overwrite", func(t *testing.T) {
		bed := nltest.New(t)
		tuned(bed, backup)
		bed.Must(plugin.Add, newCall(keys))
		if b, _ := os.ReadFile(filepath.Join(bed.Dir, "tuning", "c1_eth0.json")); string(b) != backup {
			t.Errorf("backup became %s", b)
		}
		bed.Must(plugin.Del, newCall(keys))
		if out := bed.SandboxIP("link", "show", "eth0"); !strings.Contains(out, "mtu 1500") {
			t.Errorf("not set back:\n%s", out)
		}
	})
	for name, spoil := range map[string]func(*nltest.Call){
		"broken file": func(*nltest.Call) {}, "no sandbox": func(c *nltest.Call) { c.Netns = "/nowhere" },
	} {
		t.Run(name, func(t *testing.T) {
			bed := nltest.New(t)
			tuned(bed, "{broken")
			c := newCall(keys)
			spoil(&c)
			bed.Must(plugin.Del, c)
			if left := files(t, bed.Dir); len(left) > 0 {
				t.Errorf("left behind: %s", left)
			}
		})
	}
	t.Run("sandbox reused", func(t *testing.T) {
		bed := nltest.New(t)
		tuned(bed, `{"mtu":1500}`)
		other := newCall(`"txQLen":5`)
		other.ContainerID = "c2"
		bed.Must(plugin.Add, other)
		bed.Must(plugin.Del, newCall(keys))
		if out := bed.SandboxIP("link", "show", "eth0"); !strings.Contains(out, "mtu 1400") {
			t.Errorf("another container's link was changed:\n%s", out)
		}
	})
}

func withAllowlist(path string) plugin.Plugin {
	p := Plugin
	p.Add = func(_ context.Context, c *plugin.Call, conf config) (*current.Result, error) {
		return attachWith(path, c, conf)
	}
	return p
}

func TestAllowlist(t *testing.T) {
	for _, tc := range []struct {
		name, list, key string
		code            uint
	}{
		{"listed", "^net.ipv4.conf.IFNAME.arp_filter$\n", "net.ipv4.conf.IFNAME.arp_filter", 0},
		{"part", "arp_", "net.ipv4.conf.IFNAME.arp_filter", 0},
		{"not listed", "^net.ipv4.tcp_", "net.ipv4.conf.IFNAME.arp_filter", cnierr.InvalidConfig},
		{"empty", "\n \n", "net.ipv4.conf.IFNAME.arp_filter", cnierr.InvalidConfig},
		{"broken", "(", "net.ipv4.conf.IFNAME.arp_filter", cnierr.InvalidConfig},
		{"flags and classes", `^NOT_THIS|(?i)ARP_[[:alpha:]]+$`, "net.ipv4.conf.IFNAME.arp_filter", 0},
		{"second line broken", "arp_\n(", "net.ipv4.conf.IFNAME.arp_filter", cnierr.InvalidConfig},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			list := filepath.Join(t.TempDir(), "allowlist.conf")
			if err := os.WriteFile(list, []byte(tc.list), 0o600); err != nil {
				t.Fatal(err)
			}
			c := newCall(`"sysctl":{"` + tc.key + `":"1"}`)
			c.Table = plugin.Table{"tuning": withAllowlist(list)}
			if tc.code == 0 {
				bed.Must(plugin.Add, c)
				return
			}
			bed.Fails(plugin.Add, c, tc.code)
			if v := get(t, bed, "net/ipv4/conf/eth0/arp_filter"); v != "0" {
				t.Errorf("arp_filter %s: set all the same", v)
			}
			c.Conf = conf("1.1.0", `"mtu":1400`)
			bed.Must(plugin.Add, c) // no sysctl, no list
		})
	}
	t.Run("unreadable", func(t *testing.T) {
		bed := nltest.New(t)
		prepare(bed)
		c := newCall(`"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}`)
		c.Table = plugin.Table{"tuning": withAllowlist(t.TempDir())}
		bed.Fails(plugin.Add, c, cnierr.IOFailure)
	})
}

func TestTheHostIsRefused(t *testing.T) {
	bed := nltest.New(t)
	bed.IP("link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
	c := newCall(`"sysctl":{"net.ipv4.ip_forward":"1"}`)
	c.Netns = bed.PathOf(bed.Host)
	bed.Fails(plugin.Add, c, cnierr.InvalidNetns)
	c.Override = true
	bed.Fails(plugin.Add, c, cnierr.InvalidNetns)
	if v, _ := sysctl.Get(nil, "net/ipv4/ip_forward"); v != "0" {
		t.Errorf("ip_forward %s", v)
	}
	if left := files(t, bed.Dir); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
	c.Conf = conf("1.1.0", `"mtu":1400`)
	bed.Must(plugin.Add, c) // an interface is the sandbox's own wherever that is
}

func TestTheFirstProcesssNamespaceIsRefused(t *testing.T) {
	bed := nltest.New(t)
	if _, err := netns.Identify("/proc/1/ns/net"); err != nil {
		t.Skip("not root")
	}
	c := newCall(`"sysctl":{"net.ipv4.conf.nothing.here":"1"}`)
	c.Netns, c.Override = "/proc/1/ns/net", true
	bed.Fails(plugin.Add, c, cnierr.InvalidNetns)
}

func TestSysctlRefusals(t *testing.T) {
	for _, tc := range []struct {
		key, value string
		code       uint
	}{
		{"net.ipv4.no_such_key", "1", cnierr.UnsupportedField},
		{"net.ipv4.ip_default_ttl", "70000", cnierr.InvalidConfig},
		{"net.ipv4.ip_default_ttl", "many", cnierr.InvalidConfig},
	} {
		t.Run(tc.key+"="+tc.value, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			bed.Fails(plugin.Add, newCall(fmt.Sprintf(`"sysctl":{%q:%q}`, tc.key, tc.value)), tc.code)
		})
	}
}

// TestKeysThatDoNotReadBack covers write-only keys and values that the kernel
// tells in another form.
func TestKeysThatDoNotReadBack(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	c := newCall(`"sysctl":{"net.ipv4.route.flush":"1","net.ipv4.ip_local_reserved_ports":"8081,8080"}`)
	setSysctl(t, bed, "net/ipv4/ip_local_reserved_ports", "")
	bed.Must(plugin.Add, c)
	if v := get(t, bed, "net/ipv4/ip_local_reserved_ports"); v != "8080-8081" {
		t.Errorf("reserved ports %q", v)
	}
	bed.Must(plugin.Check, c)
	bed.Must(plugin.Del, c)
	if v := get(t, bed, "net/ipv4/ip_local_reserved_ports"); v != "" {
		t.Errorf("reserved ports %q after DEL, want none", v)
	}
}

// TestDelRefusals: what may succeed later is an error, what never will is not.
func TestDelRefusals(t *testing.T) {
	for _, tc := range []struct {
		err  error
		exit int
	}{{unix.EINVAL, 0}, {unix.ENOMEM, 1}} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			c := newCall(`"mtu":1400`)
			bed.Must(plugin.Add, c)
			c.Gate = (&nltest.Faults{At: 1, Err: tc.err}).Gate
			if a := bed.Do(plugin.Del, c); a.Exit != tc.exit {
				t.Errorf("exit %d, want %d: %s%s", a.Exit, tc.exit, a.Stdout, a.Stderr)
			}
			c.Gate = nil
			bed.Must(plugin.Del, c)
			if out := bed.SandboxIP("link", "show", "eth0"); tc.exit == 1 && !strings.Contains(out, "mtu 1500") {
				t.Errorf("the second DEL did not set back:\n%s", out)
			}
		})
	}
}

// TestAddAfterAKill finds a pending record and undoes what it speaks of.
func TestAddAfterAKill(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	c := newCall(`"mtu":1400`)
	bed.Must(plugin.Add, c)
	done := filepath.Join(string(bed.Journal()), "net", "c1:eth0:tuning")
	if err := os.Rename(done, done+".pending"); err != nil {
		t.Fatal(err)
	}
	bed.Must(plugin.Add, newCall(`"mtu":1300`))
	r, err := bed.Journal().Read(journal.Key{Network: "net", ContainerID: "c1", IfName: "eth0", Plugin: "tuning"})
	if err != nil {
		t.Fatal(err)
	}
	var st state
	if err := r.GetState(&st); err != nil || st.Before.MTU != 1500 {
		t.Errorf("mtu %d is to be set back (%v), want 1500", st.Before.MTU, err)
	}
}

// A DEL under another name of the network, which was renamed since, sets back what
// ADD has set.
func TestRenamedNetwork(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	before, rmem := bed.Snapshot(), get(t, bed, "net/ipv4/tcp_rmem")
	c := newCall(all)
	bed.Must(plugin.Add, c)
	c.Conf = strings.Replace(c.Conf, `"name":"net"`, `"name":"renamed"`, 1)
	bed.Must(plugin.Del, c)
	if after := bed.Snapshot(); after != before {
		t.Errorf("DEL left\n%s\nwhere there was\n%s", after, before)
	}
	if v := get(t, bed, "net/ipv4/tcp_rmem"); v != rmem {
		t.Errorf("tcp_rmem %s after DEL, want %s", v, rmem)
	}
}
