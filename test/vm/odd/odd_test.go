// Package odd has the tests of hosts that only another kernel can be: without
// IPv6, and without nf_tables. test/vm boots them (make test-vm).
package odd

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/bridge"
	"github.com/netcleat/netcleat/plugins/firewall"
	"github.com/netcleat/netcleat/plugins/macvlan"
	"github.com/netcleat/netcleat/plugins/portmap"
	"github.com/netcleat/netcleat/plugins/ptp"
)

var (
	v4   = &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1"}, Routes: []string{"0.0.0.0/0"}}
	dual = &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1", "fd00:1::2/64 fd00:1::1"}}
)

// call is a call of the plugin with the keys and the addresses.
func call(name, keys string, stub *nltest.StubIPAM) nltest.Call {
	conf := `{"cniVersion":"1.1.0","name":"net","type":"` + name + `"`
	if keys != "" {
		conf += "," + keys
	}
	return nltest.Call{
		Plugin: name, Conf: conf + `,"ipam":{"type":"stub"}}`,
		Table: plugin.Table{
			"bridge": bridge.Plugin, "ptp": ptp.Plugin, "macvlan": macvlan.Plugin, "portmap": portmap.Plugin, "firewall": firewall.Plugin,
			"stub": stub.Plugin(),
		},
	}
}

// mains are the interface plugins with what they need.
var mains = map[string]string{
	"bridge":  `"bridge":"br0","isGateway":true,"ipMasq":true`,
	"ptp":     `"ipMasq":true`,
	"macvlan": `"master":"lan0"`,
}

// TestWithoutIPv6: a host that was booted with ipv6.disable=1 attaches containers
// with IPv4 and says of the others what is wrong.
func TestWithoutIPv6(t *testing.T) {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		t.Skip("this kernel has IPv6: make test-vm boots one that has not")
	}
	for name, keys := range mains {
		t.Run(name, func(t *testing.T) {
			bed := nltest.New(t)
			bed.IP("link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
			bed.IP("link", "set", "lan0", "up")
			before := bed.Snapshot()
			lives(t, bed, call(name, keys, v4))
			if code, msg := bed.Do(plugin.Add, call(name, keys, dual)).Error(); code == 0 || !strings.Contains(msg, "IPv6") && !strings.Contains(msg, "fd00:1::") {
				t.Errorf("an IPv6 address: code %d, %q", code, msg)
			}
			bed.Must(plugin.Del, call(name, keys, dual))
			if after := without(bed.Snapshot(), "br0"); after != without(before, "br0") {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

// TestWithoutNFTables: where the kernel has only the old tables, rules are made
// with iptables, as a user of such a host expects, and go again.
func TestWithoutNFTables(t *testing.T) {
	if err := exec.Command("nft", "list", "tables").Run(); err == nil {
		t.Skip("this kernel has nf_tables: make test-vm boots one that has not")
	}
	bed := nltest.New(t)
	saved := func() string {
		return bed.Run("iptables-legacy-save", "-t", "nat") + bed.Run("iptables-legacy-save", "-t", "filter")
	}
	saved() // loads the tables
	before := saved()
	main := call("bridge", mains["bridge"], v4)
	a := bed.Do(plugin.Add, main)
	if a.Exit != 0 {
		t.Fatal(a.Stdout)
	}
	prev := `"prevResult":` + a.Stdout
	chained := []nltest.Call{
		call("portmap", `"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},`+prev, v4),
		call("firewall", prev, v4),
	}
	for _, c := range chained {
		bed.Must(plugin.Add, c)
		bed.Must(plugin.Check, c)
	}
	for _, want := range []string{"MASQUERADE", "--to-destination 10.1.0.2:80", "10.1.0."} {
		if rules := saved(); !strings.Contains(rules, want) {
			t.Errorf("no %q in\n%s", want, rules)
		}
	}
	isolated := call("firewall", `"ingressPolicy":"isolated",`+prev, v4)
	isolated.ContainerID = "other"
	bed.Fails(plugin.Add, isolated, cnierr.UnsupportedField)
	for _, c := range append(chained, main) {
		bed.Must(plugin.Del, c)
	}
	if after := saved(); counterless(after) != counterless(before) {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// lives attaches a container, checks it, and detaches it.
func lives(t *testing.T, bed *nltest.Bed, c nltest.Call) {
	t.Helper()
	a := bed.Do(plugin.Add, c)
	if a.Exit != 0 {
		t.Fatal(a.Stdout)
	}
	checked := c
	checked.Conf = strings.TrimSuffix(c.Conf, "}") + `,"prevResult":` + a.Stdout + "}"
	bed.Must(plugin.Check, checked)
	bed.Must(plugin.Del, c)
}

// without leaves out what a bridge leaves on purpose: itself, and forwarding.
func without(snapshot, link string) string {
	var kept []string
	for line := range strings.Lines(snapshot) {
		if !strings.Contains(line, link) && !strings.Contains(line, "10.1.0.1") && !strings.Contains(line, "10.1.255.255") && !strings.Contains(line, "10.1.0.0/16") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// counterless leaves out the times and counters of iptables-save.
func counterless(saved string) string {
	var kept []string
	for line := range strings.Lines(saved) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
