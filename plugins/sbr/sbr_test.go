package sbr

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

const (
	v4   = `{"address":"10.0.0.5/24","gateway":"10.0.0.1","interface":0}`
	v6   = `{"address":"fd00::5/64","gateway":"fd00::1","interface":0}`
	v4b  = `{"address":"10.9.0.5/24","gateway":"10.9.0.1","interface":0}`
	v4ng = `{"address":"10.0.0.5/24","interface":0}`
)

func conf(version, keys string, ips ...string) string {
	prev := fmt.Sprintf(`{"cniVersion":%q,"interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[%s]}`, version, strings.Join(ips, ","))
	if !semver.AtLeast(version, "1.0.0") {
		for i, ip := range ips {
			family := "4"
			if strings.Contains(ip, "::") {
				family = "6"
			}
			ips[i] = strings.Replace(ip, `{`, `{"version":"`+family+`",`, 1)
		}
		prev = fmt.Sprintf(`{"cniVersion":%q,"interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[%s]}`, version, strings.Join(ips, ","))
	}
	if !semver.AtLeast(version, "0.3.0") {
		prev = fmt.Sprintf(`{"cniVersion":%q,"ip4":{"ip":"10.0.0.5/24","gateway":"10.0.0.1"}}`, version)
	}
	return fmt.Sprintf(`{"cniVersion":%q,"name":"net","type":"sbr",%s,"prevResult":%s}`, version, keys, prev)
}

func newCall(keys string, ips ...string) nltest.Call {
	return nltest.Call{Table: plugin.Table{"sbr": Plugin}, Plugin: "sbr", Conf: conf("1.1.0", keys, ips...)}
}

// prepare makes an interface as a main plugin leaves it, beside another one.
func prepare(bed *nltest.Bed) {
	ip := func(words string) { bed.SandboxIP(strings.Fields(words)...) }
	ip("link set lo up")
	ip("link add net0 type veth peer name net0p")
	ip("link set net0p up")
	ip("link set net0 up")
	ip("addr add 192.168.0.5/24 dev net0")
	ip("link add eth0 type veth peer name eth0p")
	ip("link set eth0p up")
	ip("addr add 10.0.0.5/24 dev eth0")
	ip("addr add 10.9.0.5/24 dev eth0")
	ip("link set eth0 up")
	ip("addr add fd00::5/64 dev eth0 nodad")
	ip("route add default via 10.0.0.1")
	ip("route add 172.16.0.0/16 via 10.9.0.1 metric 7 mtu 1400")
	ip("route add 172.17.0.0/16 dev eth0")
	ip("-6 route add default via fd00::1")
	ip("-6 route add fd01::/64 via fe80::1 dev eth0")
	bed.In(bed.Sandbox, func() { bed.AwaitLocal(net.ParseIP("fd00::5")) })
}

// routes returns a table's routes as ip(8) writes them, sorted.
func routes(bed *nltest.Bed, family, table string) []string {
	var out string
	bed.In(bed.Sandbox, func() { out, _ = bed.Try("ip", family, "route", "show", "table", table) })
	var all []string
	for l := range strings.Lines(out) {
		if l = strings.TrimSpace(strings.Replace(l, " pref medium", "", 1)); !strings.Contains(l, "fe80::/64") && l != "" && !strings.HasPrefix(l, "Error") && !strings.HasPrefix(l, "Dump") {
			all = append(all, l)
		}
	}
	slices.Sort(all)
	return all
}

func expect(t *testing.T, bed *nltest.Bed, family, table string, want ...string) {
	t.Helper()
	if got := routes(bed, family, table); !slices.Equal(got, want) {
		t.Errorf("%s table %s:\n%s\nwant\n%s", family, table, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func rules(bed *nltest.Bed) string {
	return bed.SandboxIP("rule") + bed.SandboxIP("-6", "rule")
}

func TestDualStack(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	bed.Must(plugin.Add, newCall(`"x":1`, v4, v4b, v6))
	for _, want := range []string{"from 10.0.0.5 lookup 100", "from 10.9.0.5 lookup 101", "from fd00::5 lookup 102"} {
		if !strings.Contains(rules(bed), want) {
			t.Errorf("no rule %q:\n%s", want, rules(bed))
		}
	}
	expect(t, bed, "-4", "100", "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.5", "172.17.0.0/16 dev eth0 scope link", "default via 10.0.0.1 dev eth0")
	expect(t, bed, "-4", "101", "10.9.0.0/24 dev eth0 proto kernel scope link src 10.9.0.5", "172.16.0.0/16 via 10.9.0.1 dev eth0 metric 7 mtu 1400", "172.17.0.0/16 dev eth0 scope link", "default via 10.9.0.1 dev eth0")
	expect(t, bed, "-6", "102", "default via fd00::1 dev eth0 metric 1024", "fd00::/64 dev eth0 proto kernel metric 256", "fd01::/64 via fe80::1 dev eth0 metric 1024")
	expect(t, bed, "-4", "main", "192.168.0.0/24 dev net0 proto kernel scope link src 192.168.0.5")
	expect(t, bed, "-6", "main")
	if out := bed.SandboxIP("-6", "route", "show", "table", "main"); !strings.Contains(out, "fe80::/64 dev eth0") {
		t.Errorf("link-local addresses lost their route:\n%s", out)
	}
	out := bed.SandboxIP("route", "get", "8.8.8.8", "from", "10.9.0.5")
	if !strings.Contains(out, "via 10.9.0.1") {
		t.Errorf("what leaves with 10.9.0.5: %s", out)
	}
}

func TestLifecycle(t *testing.T) {
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for name, tc := range map[string]struct {
			keys string
			ips  []string
		}{
			"v4": {`"x":1`, []string{v4}}, "v6": {`"x":1`, []string{v6}}, "dual": {`"x":1`, []string{v4, v4b, v6}},
			"hints": {`"addSourceHints":true`, []string{v4, v6}}, "table": {`"table":4000`, []string{v4, v6}},
			"gateways": {`"gateways":["10.0.0.9","fd00::9"]`, []string{v4, v6}}, "no gateway": {`"x":1`, []string{v4ng}},
		} {
			t.Run(version+" "+name, func(t *testing.T) {
				bed := nltest.New(t)
				prepare(bed)
				before := bed.Snapshot()
				c := newCall("")
				c.Conf = conf(version, tc.keys, slices.Clone(tc.ips)...)
				bed.Must(plugin.Add, c)
				attached, first := bed.Snapshot(), rules(bed)
				bed.Fails(plugin.Add, c, cnierr.AlreadyAttached)
				if got := bed.Snapshot(); got != attached {
					t.Errorf("a second ADD left\n%s\nwhere there was\n%s", got, attached)
				}
				if semver.AtLeast(version, "0.4.0") {
					bed.Must(plugin.Check, c)
				}
				bed.Must(plugin.Del, c)
				bed.Must(plugin.Del, c)
				if after := bed.Snapshot(); after != before {
					t.Errorf("DEL left\n%s\nwhere there was\n%s", after, before)
				}
				bed.Must(plugin.Add, c)
				if got := rules(bed); got != first {
					t.Errorf("other tables the second time:\n%s\nfirst\n%s", got, first)
				}
			})
		}
	}
}

func TestNoTrace(t *testing.T) {
	nltest.NoTrace(t, newCall(`"x":1`, v4, v4b, v6), prepare)
	t.Run("hints", func(t *testing.T) { nltest.NoTrace(t, newCall(`"addSourceHints":true`, v4, v6), prepare) })
}

// TestTablesInUseAreNotTaken has one with routes but no rule, and one with a rule
// but no routes.
func TestTablesInUseAreNotTaken(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	bed.SandboxIP("route", "add", "10.7.0.0/16", "dev", "net0", "table", "100")
	bed.SandboxIP("-6", "rule", "add", "from", "fd77::1", "lookup", "101")
	bed.SandboxIP("route", "add", "10.7.0.0/16", "dev", "net0", "table", "103")
	bed.Must(plugin.Add, newCall(`"x":1`, v4, v6))
	for _, want := range []string{"from 10.0.0.5 lookup 102", "from fd00::5 lookup 104"} {
		if !strings.Contains(rules(bed), want) {
			t.Errorf("no rule %q:\n%s", want, rules(bed))
		}
	}
}

func TestGatewaysAndHints(t *testing.T) {
	t.Run("gateways go before", func(t *testing.T) {
		bed := nltest.New(t)
		prepare(bed)
		bed.Must(plugin.Add, newCall(`"gateways":["10.0.0.9","fd00::9"]`, v4, v6))
		expect(t, bed, "-4", "100", "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.5", "10.9.0.0/24 dev eth0 proto kernel scope link src 10.9.0.5",
			"172.16.0.0/16 via 10.9.0.1 dev eth0 metric 7 mtu 1400", "172.17.0.0/16 dev eth0 scope link", "default via 10.0.0.9 dev eth0")
		expect(t, bed, "-6", "101", "default via fd00::9 dev eth0 metric 1024", "fd00::/64 dev eth0 proto kernel metric 256", "fd01::/64 via fe80::1 dev eth0 metric 1024")
	})
	t.Run("a gateway outside of the subnet", func(t *testing.T) {
		bed := nltest.New(t)
		prepare(bed)
		bed.Must(plugin.Add, newCall(`"gateways":["10.77.0.1"]`, v4, v4b))
		if got := strings.Join(routes(bed, "-4", "100"), "\n"); !strings.Contains(got, "default via 10.77.0.1 dev eth0 onlink") {
			t.Error(got)
		}
	})
	t.Run("hints", func(t *testing.T) {
		bed := nltest.New(t)
		prepare(bed)
		bed.Must(plugin.Add, newCall(`"addSourceHints":true`, v4, v4b, v6))
		expect(t, bed, "-4", "main", "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.5", "10.9.0.0/24 dev eth0 proto kernel scope link src 10.9.0.5", "192.168.0.0/24 dev net0 proto kernel scope link src 192.168.0.5")
		expect(t, bed, "-6", "main", "fd00::/64 dev eth0 proto kernel src fd00::5 metric 256")
	})
	t.Run("table", func(t *testing.T) {
		bed := nltest.New(t)
		prepare(bed)
		main4, main6 := routes(bed, "-4", "main"), routes(bed, "-6", "main")
		a := bed.Do(plugin.Add, newCall(`"table":4000,"gateways":["10.0.0.9"]`, v4, v6))
		if a.Exit != 0 || !strings.Contains(a.Stderr, "do nothing beside table") {
			t.Errorf("%s%s", a.Stdout, a.Stderr)
		}
		expect(t, bed, "-4", "main", main4...)
		expect(t, bed, "-6", "main", main6...)
		if strings.Count(rules(bed), "lookup 4000") != 2 {
			t.Error(rules(bed))
		}
	})
}

func TestAddWithout(t *testing.T) {
	bed := nltest.New(t)
	c := newCall(`"x":1`)
	if msg := bed.Fails(plugin.Add, c, cnierr.InvalidConfig); !strings.Contains(msg, "No IP addresses supplied on interface: eth0") {
		t.Error(msg)
	}
	c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"sbr"}`
	if msg := bed.Fails(plugin.Add, c, cnierr.InvalidConfig); !strings.Contains(msg, "This plugin must be called as chained plugin") {
		t.Error(msg)
	}
	if msg := bed.Fails(plugin.Add, newCall(`"x":1`, v4), cnierr.Internal); !strings.Contains(msg, "Cannot find network interface eth0") {
		t.Error(msg)
	}
}

func TestAddressesOfOtherInterfacesAreNothingToDo(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	before := rules(bed)
	c := newCall(`"x":1`, v4)
	c.Conf = strings.Replace(c.Conf, `"name":"eth0"`, `"name":"net0"`, 1)
	bed.Must(plugin.Add, c)
	if got := rules(bed); got != before {
		t.Errorf("rules:\n%s", got)
	}
	bed.Must(plugin.Check, c)
	bed.Must(plugin.Del, c)
}

func TestDelWithout(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*nltest.Bed, *nltest.Call)
	}{
		{"prevResult and keys", func(_ *nltest.Bed, c *nltest.Call) { c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"sbr"}` }},
		{"a right configuration", func(_ *nltest.Bed, c *nltest.Call) {
			c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"sbr","table":"x","gateways":["x"]}`
		}},
		{"CNI_NETNS", func(_ *nltest.Bed, c *nltest.Call) { c.Netns = nltest.NoNetns }},
		{"the link", func(b *nltest.Bed, _ *nltest.Call) { b.SandboxIP("link", "del", "eth0") }},
		{"the link up", func(b *nltest.Bed, _ *nltest.Call) { b.SandboxIP("link", "set", "eth0", "down") }},
		{"the addresses", func(b *nltest.Bed, _ *nltest.Call) { b.SandboxIP("addr", "flush", "dev", "eth0") }},
		{"the rules", func(b *nltest.Bed, _ *nltest.Call) {
			b.SandboxIP("rule", "del", "from", "10.0.0.5")
			b.SandboxIP("-6", "rule", "del", "from", "fd00::5")
		}},
		{"the routes", func(b *nltest.Bed, _ *nltest.Call) { b.SandboxIP("route", "flush", "table", "100") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			c := newCall(`"x":1`, v4, v6)
			bed.Must(plugin.Add, c)
			tc.spoil(bed, &c)
			bed.Must(plugin.Del, c)
			if got := rules(bed); c.Netns == "" && (strings.Contains(got, "10.0.0.5") || strings.Contains(got, "fd00::5")) {
				t.Errorf("rules left behind:\n%s", got)
			}
			if left, _ := filepath.Glob(filepath.Join(string(bed.Journal()), "*", "*")); len(left) > 0 {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

// TestDelMakesNoFile: the reference leaves a regular file in the place of the
// namespace, and fails.
func TestDelMakesNoFile(t *testing.T) {
	bed := nltest.New(t)
	c := newCall(`"x":1`, v4)
	c.Netns = filepath.Join(t.TempDir(), "gone")
	bed.Must(plugin.Del, c)
	if _, err := os.Lstat(c.Netns); err == nil {
		t.Errorf("%s was made", c.Netns)
	}
}

func TestCheckNotices(t *testing.T) {
	for _, change := range []string{
		"rule del from 10.0.0.5", "-6 rule del from fd00::5", "route del default table 100", "-6 route flush table 101",
		"route flush table 100", "link set eth0 down", "link del eth0",
	} {
		t.Run(change, func(t *testing.T) {
			bed := nltest.New(t)
			prepare(bed)
			c := newCall(`"x":1`, v4, v6)
			bed.Must(plugin.Add, c)
			bed.Must(plugin.Check, c)
			bed.SandboxIP(strings.Fields(change)...)
			bed.Fails(plugin.Check, c, cnierr.CheckFailed)
		})
	}
}

func TestGC(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	before := bed.Snapshot()
	c := newCall(`"x":1`, v4, v6)
	bed.Must(plugin.Add, c)
	gc := c
	gc.Conf = `{"cniVersion":"1.1.0","name":"net","type":"sbr","cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}`
	bed.Must(plugin.GC, gc)
	bed.Must(plugin.Check, c)
	gc.Conf = `{"cniVersion":"1.1.0","name":"net","type":"sbr","cni.dev/valid-attachments":[]}`
	bed.Must(plugin.GC, gc)
	if after := bed.Snapshot(); after != before {
		t.Errorf("GC left\n%s\nwhere there was\n%s", after, before)
	}
}

// TestAttachedByTheReference has its rules and no record.
func TestAttachedByTheReference(t *testing.T) {
	made := func(bed *nltest.Bed) {
		prepare(bed)
		bed.SandboxIP("rule", "add", "from", "10.0.0.5", "lookup", "100")
		bed.SandboxIP("-6", "rule", "add", "from", "fd00::5", "lookup", "101")
		bed.SandboxIP("rule", "add", "from", "10.0.0.0/24", "lookup", "200")
		bed.SandboxIP("rule", "add", "from", "192.168.0.5", "lookup", "201")
	}
	for name, spoil := range map[string]func(*nltest.Bed, *nltest.Call){
		"as attached":        func(*nltest.Bed, *nltest.Call) {},
		"without prevResult": func(_ *nltest.Bed, c *nltest.Call) { c.Conf = `{"cniVersion":"1.1.0","name":"net","type":"sbr"}` },
		"without the link":   func(b *nltest.Bed, _ *nltest.Call) { b.SandboxIP("link", "del", "eth0") },
	} {
		t.Run(name, func(t *testing.T) {
			bed := nltest.New(t)
			made(bed)
			c := newCall(`"x":1`, v4, v6)
			bed.Must(plugin.Check, c)
			spoil(bed, &c)
			bed.Must(plugin.Del, c)
			got := rules(bed)
			if strings.Contains(got, "lookup 100") || strings.Contains(got, "lookup 101") || !strings.Contains(got, "lookup 200") || !strings.Contains(got, "lookup 201") {
				t.Errorf("rules after DEL:\n%s", got)
			}
		})
	}
	t.Run("CHECK", func(t *testing.T) {
		bed := nltest.New(t)
		made(bed)
		bed.SandboxIP("rule", "del", "from", "10.0.0.5")
		bed.Fails(plugin.Check, newCall(`"x":1`, v4, v6), cnierr.CheckFailed)
	})
	t.Run("only the configured table's", func(t *testing.T) {
		bed := nltest.New(t)
		made(bed)
		bed.Must(plugin.Del, newCall(`"table":100`, v4, v6))
		if got := rules(bed); strings.Contains(got, "lookup 100") || !strings.Contains(got, "lookup 101") {
			t.Errorf("rules after DEL:\n%s", got)
		}
	})
}

// TestDelInALaterSandbox has lost the record, and the path has come to lead to another
// container's sandbox: prevResult says that the interface there is not the attachment's.
func TestDelInALaterSandbox(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	bed.SandboxIP("rule", "add", "from", "10.0.0.5", "lookup", "100")
	c := newCall(`"x":1`, strings.Replace(v4, "10.0.0.5", "10.0.0.6", 1))
	c.Conf = strings.Replace(c.Conf, `"name":"eth0"`, `"name":"eth0","mac":"02:00:00:00:00:99"`, 1)
	bed.Must(plugin.Del, c)
	if got := rules(bed); !strings.Contains(got, "lookup 100") {
		t.Errorf("rules after DEL:\n%s", got)
	}
}

// TestDelInALeasedSandbox has lost the record and prevResult: the lease of the
// interface's address says that it is another container's.
func TestDelInALeasedSandbox(t *testing.T) {
	for owner, want := range map[string]bool{"c1": false, "c2": true} {
		bed := nltest.New(t)
		prepare(bed)
		bed.SandboxIP("rule", "add", "from", "10.0.0.5", "lookup", "100")
		c := newCall(`"x":1`, v4)
		c.Conf = fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","type":"sbr","ipam":{"dataDir":%q}}`, bed.Lease("10.0.0.5", owner))
		bed.Must(plugin.Del, c)
		if got := rules(bed); strings.Contains(got, "lookup 100") != want {
			t.Errorf("leased to %s: rules after DEL of c1:\n%s", owner, got)
		}
	}
}

// TestAnAddWaitsForTheLock has another call hold the sandbox for a while.
func TestAnAddWaitsForTheLock(t *testing.T) {
	bed := nltest.New(t)
	prepare(bed)
	fd, err := unix.Open(bed.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	timer := time.AfterFunc(300*time.Millisecond, func() { _ = unix.Close(fd) })
	defer timer.Stop()
	bed.Must(plugin.Add, newCall(`"x":1`, v4))
	if took := time.Since(start); took < 250*time.Millisecond {
		t.Errorf("ADD took %v: it did not wait for the one that holds the sandbox", took)
	}
}
