package tap

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// TestMain makes the test binary the plugin where the plugin runs itself.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "tap" {
		plugin.Main(plugin.Table{"tap": Plugin})
	}
	os.Exit(m.Run())
}

var life = nltest.Life{
	Name: "tap", Plugin: Plugin, Layer2: true,
	Prepare: func(*nltest.Bed) *netns.NS { return nil },
}

func TestLife(t *testing.T) { life.Test(t) }

func TestEveryKeyLeavesNoTrace(t *testing.T) {
	keys := `"multiQueue":true,"mtu":1400,"mac":"02:00:00:00:00:77","owner":4241,"group":107,"bridge":"br9"`
	nltest.NoTrace(t, life.Call(nltest.DualStack(), keys), func(b *nltest.Bed) {
		b.SandboxIP("link", "add", "br9", "type", "bridge", "forward_delay", "0")
	})
}

func TestDevice(t *testing.T) {
	for keys, want := range map[string]string{
		``:                          "tun type tap pi off vnet_hdr off persist on",
		`"multiQueue":true`:         "multi_queue",
		`"owner":4241`:              "user 4241",
		`"owner":0`:                 "user root",
		`"group":4242`:              "group 4242",
		`"owner":4241,"group":4242`: "tun type tap pi off vnet_hdr off persist on user 4241 group 4242",
		`"mtu":1400`:                "mtu 1400",
		`"mac":"02:00:00:00:00:77"`: "link/ether 02:00:00:00:00:77",
		`"bridge":"br9"`:            "master br9",
		`"owner":1,"group":2,"mtu":1400,"mac":"02:00:00:00:00:77"`: "mtu 1400",
	} {
		t.Run(keys, func(t *testing.T) {
			bed := nltest.New(t)
			bed.SandboxIP("link", "add", "br9", "type", "bridge")
			c := life.Call(nil, keys)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			got := bed.SandboxIP("-d", "link", "show", "eth0")
			if !strings.Contains(strings.Join(strings.Fields(got), " "), want) || !strings.Contains(got, ",UP") {
				t.Errorf("no %q in\n%s", want, got)
			}
			if !strings.Contains(keys, "multi") && strings.Contains(got, "multi_queue") {
				t.Error(got)
			}
			bed.Must(plugin.Check, c.With(`"prevResult":`+a.Stdout))
			bed.Must(plugin.Del, c)
		})
	}
}

// The result describes the device.
func TestResult(t *testing.T) {
	bed := nltest.New(t)
	res := bed.Must(plugin.Add, life.Call(nil, `"mtu":1400,"mac":"02:00:00:00:00:77"`))
	if i := res.Interfaces[0]; len(res.Interfaces) != 1 || i.Name != "eth0" || i.Mac != "02:00:00:00:00:77" || i.Mtu != 1400 || i.Sandbox != bed.Path {
		t.Errorf("%+v", res.Interfaces)
	}
}

// A virtual machine opens the tap, and packets come through it.
func TestPackets(t *testing.T) {
	bed := nltest.New(t)
	bed.Must(plugin.Add, life.Call(&nltest.StubIPAM{Addresses: []string{"10.1.0.2/16"}}, ""))
	fd, err := bed.Sandbox.OpenFile(cloner, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq("eth0")
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatal(err)
	}
	bed.In(bed.Sandbox, func() { bed.Try("ping", "-c1", "-W1", "10.1.0.9") })
	frame := make([]byte, 2000)
	for range 20 {
		n, err := unix.Read(fd, frame)
		if err != nil {
			t.Fatal(err)
		}
		if n == 42 && frame[12] == 8 && frame[13] == 6 { // ARP asks for 10.1.0.9
			return
		}
	}
	t.Error("no ARP request came through the tap")
}

// A bridge of the sandbox keeps its hardware address and MTU as taps come and go.
func TestBridgeStaysAsItWas(t *testing.T) {
	bed := nltest.New(t)
	bed.In(bed.Sandbox, func() {
		bed.IPBatch(`
			link add br9 type bridge
			link add p0 mtu 9000 address 0a:00:00:00:00:99 up master br9 type veth peer name p1 mtu 9000
			link set br9 up`)
	})
	traits := func() string {
		out := bed.SandboxIP("-o", "link", "show", "br9")
		return regexp.MustCompile(`mtu \d+`).FindString(out) + " " + regexp.MustCompile(`link/ether \S+`).FindString(out)
	}
	before := traits()
	c := life.Call(nil, `"bridge":"br9","mac":"02:00:00:00:00:01"`)
	res := bed.Must(plugin.Add, c)
	if res.Interfaces[0].Mtu != 9000 {
		t.Errorf("MTU of the tap: %d", res.Interfaces[0].Mtu)
	}
	if with := traits(); with != before {
		t.Errorf("with a tap: %s, before: %s", with, before)
	}
	bed.Must(plugin.Del, c)
	if after := traits(); after != before || !strings.Contains(after, "mtu 9000 link/ether 0a:00:00:00:00:99") {
		t.Errorf("after DEL: %s, before: %s", after, before)
	}
}

func TestNoBridge(t *testing.T) {
	bed := nltest.New(t)
	before := bed.Snapshot()
	msg := bed.Fails(plugin.Add, life.Call(nltest.DualStack(), `"bridge":"br9"`), cnierr.InvalidConfig)
	if !strings.Contains(msg, "failed to get bridge br9: no such interface in the sandbox") {
		t.Error(msg)
	}
	if bed.Snapshot() != before {
		t.Error("a refused ADD changed something")
	}
}

// The kernel refuses a name that was taken after the look.
func TestNameTakenMeanwhile(t *testing.T) {
	bed := nltest.New(t)
	d := device{Name: "eth0", MAC: "02:00:00:00:00:77"}
	if err := create(bed.Sandbox, d); err != nil {
		t.Fatal(err)
	}
	if err := create(bed.Sandbox, d); !errors.Is(err, unix.EBUSY) {
		t.Errorf("%v, want EBUSY", err)
	}
	d.Name = "tap%d"
	if err := create(bed.Sandbox, d); err == nil || strings.Contains(bed.SandboxIP("-br", "link"), "tap") {
		t.Errorf("a pattern for a name: %v\n%s", err, bed.SandboxIP("-br", "link"))
	}
}

// What runs under another label is this very plugin.
func TestInProcess(t *testing.T) {
	bed := nltest.New(t)
	inSandbox := func(cmd *exec.Cmd) (err error) {
		bed.In(bed.Sandbox, func() { err = cmd.Run() })
		return err
	}
	owner := uint32(4241)
	d := device{Name: "eth0", MAC: "02:00:00:00:00:77", Owner: &owner, MultiQueue: true}
	if err := inProcess(t.Context(), d, inSandbox); err != nil {
		t.Fatal(err)
	}
	got := bed.SandboxIP("-d", "link", "show", "eth0")
	for _, want := range []string{"02:00:00:00:00:77", "user 4241", "multi_queue", "persist on"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	err := inProcess(t.Context(), d, inSandbox)
	if err == nil || !strings.Contains(err.Error(), "within the sandbox: create tap eth0: ioctl TUNSETIFF: device or resource busy") {
		t.Errorf("a taken name: %v", err)
	}
	if out := bed.IP("-br", "link"); strings.Contains(out, "eth0") {
		t.Errorf("on the host:\n%s", out)
	}
}

// What tap tells itself is no key of a configuration: nothing is made on the host.
func TestWithinIsNoKey(t *testing.T) {
	bed := nltest.New(t)
	c := life.Call(nil, `"netcleat/within":{"name":"evil0","mac":"02:00:00:00:00:01","owner":65534}`)
	bed.Must(plugin.Add, c)
	if out := bed.IP("-br", "link"); strings.Contains(out, "evil0") {
		t.Errorf("on the host:\n%s", out)
	}
	if out := bed.SandboxIP("-br", "link"); !strings.Contains(out, "eth0") {
		t.Errorf("in the sandbox:\n%s", out)
	}
	bed.Must(plugin.Del, c)
}

// Without SELinux, or its policy, there is no label to be had: ADD says so and leaves nothing.
func TestLabelWithoutSELinux(t *testing.T) {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Skip("this host has SELinux")
	}
	bed := nltest.New(t)
	before := bed.Snapshot()
	msg := bed.Fails(plugin.Add, life.Call(nltest.DualStack(), `"selinuxContext":"system_u:system_r:container_t:s0"`), cnierr.UnsupportedField)
	if !strings.Contains(msg, "selinuxContext") {
		t.Error(msg)
	}
	if bed.Snapshot() != before {
		t.Error("a refused ADD changed something")
	}
}

func TestCheckFinds(t *testing.T) {
	for what, change := range map[string][]string{
		"down":       {"link", "set", "eth0", "down"},
		"mtu":        {"link", "set", "eth0", "mtu", "1280"},
		"MAC":        {"link", "set", "eth0", "address", "02:00:00:00:00:99"},
		"no port":    {"link", "set", "eth0", "nomaster"},
		"no bridge":  {"link", "del", "br9"},
		"no address": {"addr", "del", "10.1.0.2/16", "dev", "eth0"},
		"gone":       {"link", "del", "eth0"},
		"a tun":      {"tun"},
		"an owner":   {"owner"},
		"one queue":  {"queue"},
	} {
		t.Run(what, func(t *testing.T) {
			bed := nltest.New(t)
			bed.SandboxIP("link", "add", "br9", "type", "bridge")
			c := life.Call(&nltest.StubIPAM{Addresses: []string{"10.1.0.2/16"}}, `"mtu":1400,"bridge":"br9","owner":4241,"multiQueue":true,"mac":"02:00:00:00:00:77"`)
			a := bed.Do(plugin.Add, c)
			c = c.With(`"prevResult":` + a.Stdout)
			bed.Must(plugin.Check, c)
			mode := map[string][]string{
				"tun": {"mode", "tun", "multi_queue", "user", "4241"}, "owner": {"mode", "tap", "multi_queue", "user", "4240"}, "queue": {"mode", "tap", "user", "4241"},
			}[change[0]]
			if mode == nil {
				bed.SandboxIP(change...)
			} else {
				bed.SandboxIP("link", "del", "eth0")
				bed.SandboxIP(append([]string{"tuntap", "add", "name", "eth0"}, mode...)...)
				if mode[1] == "tap" {
					bed.SandboxIP("link", "set", "eth0", "address", "02:00:00:00:00:77", "mtu", "1400", "master", "br9", "up")
				}
				bed.SandboxIP("addr", "add", "10.1.0.2/16", "dev", "eth0")
			}
			bed.Fails(plugin.Check, c, cnierr.CheckFailed)
		})
	}
}

func TestStatus(t *testing.T) {
	nltest.New(t).Must(plugin.Status, life.Call(nltest.DualStack(), ""))
}
