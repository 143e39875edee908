package graph

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

// A container on two networks is one node with two lines to it.
func TestOneNodeForEachContainer(t *testing.T) {
	web := func(ifName string) show.Row {
		return show.Row{Container: "c1", Name: "web", Interface: ifName, HostEnd: "veth" + ifName, Netns: "/run/netns/web", Health: show.Healthy}
	}
	nodes := []node{
		{show.Network{Name: "front", Driver: "bridge", Containers: []show.Row{web("eth0")}}, "br-front", nil},
		{show.Network{Name: "back", Driver: "bridge", Containers: []show.Row{web("eth1"), {Container: "c2", Name: "db", Interface: "eth0", Health: "eth0 is down"}}}, "br-back", nil},
	}
	for format, draw := range map[string]func([]node) string{"dot": dot, "mermaid": mermaid} {
		got := draw(nodes)
		for text, want := range map[string]int{"web": 1, "db": 1, "vetheth0": 1, "vetheth1": 1, "eth0 is down": 1} {
			if n := strings.Count(got, text); n != want {
				t.Errorf("%s: %q is there %d times, want %d\n%s", format, text, n, want, got)
			}
		}
	}
}

// Each remote host of an overlay network is one node, with its address and its blocks; one
// that this host does not forward to says so.
func TestRemoteHosts(t *testing.T) {
	at := netip.MustParseAddr
	nodes := []node{{
		show.Network{Name: "web", Driver: "bridge", Containers: []show.Row{{Container: "c1", Name: "app", Interface: "eth0", Health: show.Healthy}}},
		"web0",
		[]Remote{
			{Host: "h2", VTEP: at("192.0.2.12"), Uplink: "vxlan100", Blocks: []string{"10.100.0.16/28"}, Forwarded: 15},
			{Host: "h3", VTEP: at("192.0.2.13"), Uplink: "vxlan100", Blocks: []string{"10.100.0.32/28"}},
			{VTEP: at("192.0.2.14"), Uplink: "vxlan100", Forwarded: 3},
		},
	}}
	for format, draw := range map[string]func([]node) string{"text": text, "dot": dot, "mermaid": mermaid, "svg": svg} {
		got := draw(nodes)
		for text, want := range map[string]int{
			"host h2 at 192.0.2.12": 1, "host h3 at 192.0.2.13": 1, "host at 192.0.2.14": 1, "10.100.0.16/28": 1, "10.100.0.32/28": 1, "MAC addresses: 3": 1, "vxlan100": 3, "not reached": 1, "app": 1,
		} {
			if n := strings.Count(got, text); n != want {
				t.Errorf("%s: %q is there %d times, want %d\n%s", format, text, n, want, got)
			}
		}
	}
	if got := text(nodes); strings.Count(got, "├") != 3 || strings.Count(got, "└") != 1 || !strings.Contains(got, "└── vxlan100 ═══ host at 192.0.2.14") {
		t.Error(got)
	}
}
