package graph

import (
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
		{show.Network{Name: "front", Driver: "bridge", Containers: []show.Row{web("eth0")}}, "br-front"},
		{show.Network{Name: "back", Driver: "bridge", Containers: []show.Row{web("eth1"), {Container: "c2", Name: "db", Interface: "eth0", Health: "eth0 is down"}}}, "br-back"},
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
