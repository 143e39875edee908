package loopback

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

func call(version string) nltest.Call {
	return nltest.Call{
		Table: plugin.Table{"loopback": Plugin}, Plugin: "loopback", IfName: "lo",
		Conf: `{"cniVersion":"` + version + `","name":"cni-loopback","type":"loopback"}`,
	}
}

func TestAttachLeavesNoTrace(t *testing.T) { nltest.NoTrace(t, call("1.1.0"), func(*nltest.Bed) {}) }

func TestLifecycle(t *testing.T) {
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			bed := nltest.New(t)
			c := call(version)
			if semver.AtLeast(version, "0.4.0") {
				bed.Fails(plugin.Check, c, cnierr.CheckFailed)
			}
			for range 2 { // runtimes may call it again
				res := bed.Must(plugin.Add, c)
				if len(res.IPs) != 2 || res.IPs[0].Address.IP.String() != "127.0.0.1" || res.IPs[1].Address.IP.String() != "::1" {
					t.Errorf("addresses %v", res.IPs)
				}
			}
			if semver.AtLeast(version, "0.4.0") {
				bed.Must(plugin.Check, c)
			}
			bed.Must(plugin.Del, c)
			bed.Must(plugin.Del, c)
			c.Netns = nltest.NoNetns
			bed.Must(plugin.Del, c)
			if lo := bed.SandboxIP("link", "show", "lo"); !strings.Contains(lo, ",UP") {
				t.Errorf("DEL took lo down: %s", lo)
			}
			if semver.AtLeast(version, "1.1.0") {
				bed.Must(plugin.GC, call(version))
				bed.Must(plugin.Status, call(version))
			}
		})
	}
}

// An address that somebody gave lo neither harms nor is reported.
func TestForeignAddress(t *testing.T) {
	bed := nltest.New(t)
	bed.SandboxIP("addr", "add", "192.0.2.1/32", "dev", "lo")
	if res := bed.Must(plugin.Add, call("1.0.0")); len(res.IPs) != 2 {
		t.Errorf("addresses %v", res.IPs)
	}
}

// prevResult comes out as it went in.
func TestChained(t *testing.T) {
	bed := nltest.New(t)
	c := call("1.0.0")
	prev := "{\n    \"cniVersion\": \"1.0.0\",\n    \"interfaces\": [\n        {\n            \"name\": \"eth0\"\n        }\n    ]\n}"
	c.Conf = strings.TrimSuffix(c.Conf, "}") + `,"prevResult":` + prev + "}"
	if diff := cmp.Diff(prev, bed.Do(plugin.Add, c).Stdout); diff != "" {
		t.Error(diff)
	}
}

func TestNoSandbox(t *testing.T) {
	bed := nltest.New(t)
	c := call("1.0.0")
	c.Netns = "/run/netns/gone"
	if msg := bed.Fails(plugin.Add, c, cnierr.InvalidNetns); !strings.Contains(msg, `failed to open netns "/run/netns/gone"`) {
		t.Error(msg)
	}
}
