package dummy

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
)

var life = nltest.Life{
	Name: "dummy", Plugin: Plugin, Feature: "dummy",
	Prepare: func(*nltest.Bed) *netns.NS { return nil },
	Reach:   reach,
}

// reach pings the sandbox's own addresses, the only ones that there are.
func reach(b *nltest.Bed, _ *netns.NS, stub *nltest.StubIPAM) {
	for _, a := range stub.Addresses {
		addr, _, _ := strings.Cut(a, "/")
		b.SandboxIP("link", "set", "lo", "up")
		b.Reaches(b.Sandbox, addr)
	}
}

func TestLife(t *testing.T) { life.Test(t) }
