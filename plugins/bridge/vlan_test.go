package bridge

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// filtering returns a bed, or skips where the kernel's bridges know no VLANs.
func filtering(t *testing.T) *nltest.Bed {
	t.Helper()
	bed := nltest.New(t)
	nltest.Require(t, "vlan_filtering", bed.HasLink("bridge", "vlan_filtering", "1"))
	return bed
}

// vlans lists the VLANs of a port as bridge(8) does: "1 pvid egress untagged, 7-9".
func vlans(t *testing.T, bed *nltest.Bed, port string) string {
	t.Helper()
	var all []struct {
		VLANs []struct {
			VLAN  int
			Flags []string
		}
	}
	if err := json.Unmarshal([]byte(bed.Run("bridge", "-j", "vlan", "show", "dev", port)), &all); err != nil || len(all) != 1 {
		t.Fatalf("VLANs of %s: %v %v", port, all, err)
	}
	var list []string
	for i, v := range all[0].VLANs {
		s := fmt.Sprint(v.VLAN)
		switch {
		case len(v.Flags) > 0:
			s += " " + strings.ToLower(strings.Join(v.Flags, " "))
		case i > 0 && all[0].VLANs[i-1].VLAN == v.VLAN-1 && len(all[0].VLANs[i-1].Flags) == 0:
			first, _, _ := strings.Cut(list[len(list)-1], "-")
			list = list[:len(list)-1]
			s = first + "-" + s
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}

func TestPortVLANs(t *testing.T) {
	for keys, want := range map[string]string{
		`"vlan":100`:                            "100 pvid egress untagged",
		`"vlan":100,"preserveDefaultVlan":true`: "1 egress untagged, 100 pvid egress untagged",
		`"vlan":1`:                              "1 pvid egress untagged",
		`"vlanTrunk":[{"id":7}]`:                "1 pvid egress untagged, 7",
		`"vlanTrunk":[{"minID":10,"maxID":20,"id":30},{"id":31}]`:                    "1 pvid egress untagged, 10-20, 30-31",
		`"vlan":15,"vlanTrunk":[{"minID":10,"maxID":20}]`:                            "10-14, 15 pvid egress untagged, 16-20",
		`"vlanTrunk":[{"minID":1,"maxID":4094}]`:                                     "1 pvid egress untagged, 2-4094",
		`"vlan":100,"vlanTrunk":[{"id":100},{"id":200}],"preserveDefaultVlan":false`: "100 pvid egress untagged, 200",
	} {
		t.Run(keys, func(t *testing.T) {
			bed := filtering(t)
			c := call(nil, keys)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			port := strings.Fields(bed.IP("-br", "link", "show", "type", "veth"))[0]
			port, _, _ = strings.Cut(port, "@")
			if got := vlans(t, bed, port); got != want {
				t.Errorf("port has %s, want %s", got, want)
			}
			bed.Must(plugin.Check, with(c, `"prevResult":`+a.Stdout))
			bed.Must(plugin.Del, c)
		})
	}
}

// Containers of one VLAN reach each other and their gateway, and nobody else.
func TestVLANsAreApart(t *testing.T) {
	bed := filtering(t)
	_, a := add(bed, "a", `"isGateway":true,"vlan":100`, "10.1.0.2/16 10.1.0.1", "fd00:1::2/64 fd00:1::1")
	add(bed, "b", `"isGateway":true,"vlan":100`, "10.1.0.3/16 10.1.0.1")
	other, _ := add(bed, "c", `"vlan":200`, "10.1.0.4/16")
	add(bed, "d", ``, "10.1.0.5/16")
	for to, want := range map[string]bool{"10.1.0.1": true, "fd00:1::1": true, "10.1.0.3": true, "10.1.0.4": false, "10.1.0.5": false} {
		if got := pingFrom(bed, a, to); got != want {
			t.Errorf("%s answers: %v, want %v", to, got, want)
		}
	}
	bed.Must(plugin.Del, other)
	if got := bed.IP("-br", "addr", "show", "br0"); strings.Contains(got, "10.1.0.1") {
		t.Errorf("the bridge has the gateway of a VLAN: %s", got)
	}
}

// The VLAN's gateway is on an interface of its own, which is the result's fourth,
// has the bridge's MTU and is made once.
func TestVLANGateway(t *testing.T) {
	bed := filtering(t)
	c := call(&nltest.StubIPAM{Addresses: []string{"10.1.0.2/16"}}, `"isGateway":true,"vlan":100,"mtu":1400`)
	res := bed.Must(plugin.Add, c)
	if len(res.Interfaces) != 4 || res.Interfaces[3].Name != "br0.100" {
		t.Fatalf("interfaces %v", res.Interfaces)
	}
	if got := bed.IP("-br", "addr", "show", "br0.100"); !strings.Contains(got, "10.1.0.1/16") || !strings.Contains(got, "UP") {
		t.Errorf("gateway: %s", got)
	}
	if got := bed.IP("link", "show", "br0.100"); !strings.Contains(got, "mtu 1400") {
		t.Errorf("gateway: %s", got)
	}
	if got := strings.TrimSpace(bed.Run("cat", "/proc/sys/net/ipv6/conf/br0.100/accept_ra")); got != "0" {
		t.Errorf("gateway has accept_ra=%s", got)
	}
	c.ContainerID, c.Netns = "c2", bed.PathOf(bed.NewSandbox())
	c.Table = table(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16"}})
	bed.Must(plugin.Add, c)
	if got := strings.Count(bed.IP("-br", "link", "show", "type", "veth"), "\n"); got != 2 {
		t.Errorf("%d ports, want two", got)
	}
	if got := vlans(t, bed, "br0"); !strings.Contains(got, "100") {
		t.Errorf("the bridge is in %s, not in the VLAN", got)
	}
}

// A gateway's pair that a killed ADD left without its VLAN is finished.
func TestVLANGatewayByHalf(t *testing.T) {
	bed := filtering(t)
	bed.IP("link", "add", "br0", "type", "bridge", "vlan_filtering", "1")
	bed.IP("link", "add", "brhalf", "master", "br0", "up", "type", "veth", "peer", "name", "br0.100")
	_, a := add(bed, "a", `"isGateway":true,"vlan":100`, "10.1.0.2/16 10.1.0.1")
	if !pingFrom(bed, a, "10.1.0.1") {
		t.Error("the gateway does not answer")
	}
	if got := vlans(t, bed, "brhalf"); got != "100 pvid egress untagged" {
		t.Errorf("gateway's port has %s", got)
	}
}

// A kernel without VLAN devices has a pair for the gateway, as with the reference.
func TestVLANGatewayByPair(t *testing.T) {
	bed := filtering(t)
	c := call(&nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1"}}, `"isGateway":true,"vlan":100`)
	c.Gate = func(what string) error {
		if what == "create vlan br0.100" {
			return unix.EOPNOTSUPP
		}
		return nil
	}
	bed.Must(plugin.Add, c)
	if got := bed.IP("-br", "link", "show", "type", "veth"); !strings.Contains(got, "br0.100@") {
		t.Errorf("no pair:\n%s", got)
	}
	if !pingFrom(bed, bed.Sandbox, "10.1.0.1") {
		t.Error("the gateway does not answer")
	}
}

// Failed ADDs with a VLAN leave no port behind.
func TestVLANAttachLeavesNoTrace(t *testing.T) {
	filtering(t)
	c := call(&nltest.StubIPAM{Addresses: []string{"10.1.0.2/16"}}, `"isGateway":true,"vlan":100,"vlanTrunk":[{"minID":10,"maxID":20}]`)
	nltest.NoTrace(t, c, func(b *nltest.Bed) {
		first := c
		first.ContainerID, first.Netns = "other", b.PathOf(b.NewSandbox())
		b.Must(plugin.Add, first)
	})
}

// VLANs on a bridge that does not keep them apart would be isolation that is not
// there.
func TestVLANNeedsAFilteringBridge(t *testing.T) {
	bed := nltest.New(t)
	bed.IP("link", "add", "br0", "type", "bridge")
	for _, keys := range []string{`"vlan":100`, `"vlanTrunk":[{"id":7}]`} {
		msg := bed.Fails(plugin.Add, call(nil, keys), cnierr.UnsupportedField)
		if !strings.Contains(msg, "vlan_filtering is off") {
			t.Error(msg)
		}
		if links := bed.IP("-br", "link", "show", "type", "veth"); links != "" {
			t.Errorf("left behind:\n%s", links)
		}
	}
}

// Containers of a VLAN reach other machines, whose answers find back, also where
// the host's rules see what passes a bridge, as on every Kubernetes node.
func TestVLANEgress(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		for _, nf := range []string{"0", "1"} {
			t.Run(backend+" bridge-nf-call="+nf, func(t *testing.T) {
				bed := filtering(t)
				bed.Forward()
				for _, key := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
					bed.Run("sysctl", "-qw", "net.bridge."+key+"="+nf)
				}
				world := lan(bed)
				_, a := add(bed, "a", `"isDefaultGateway":true,"vlan":100,"ipMasq":true,"ipMasqBackend":"`+backend+`"`, "10.1.0.2/16 10.1.0.1", "fd00:1::2/64 fd00:1::1")
				for to, want := range map[string]string{"192.0.2.9": "192.0.2.1", "2001:db8::9": "2001:db8::1"} {
					if got := seenBy(t, bed, a, world, to); got != want {
						t.Errorf("%s sees %q, want %q", to, got, want)
					}
					if !pingFrom(bed, a, to) {
						t.Errorf("%s does not answer", to)
					}
				}
			})
		}
	}
}
