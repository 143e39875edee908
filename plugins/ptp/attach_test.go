package ptp

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
)

var life = nltest.Life{
	Name: "ptp", Plugin: Plugin,
	Prepare: func(b *nltest.Bed) *netns.NS { return b.NewLAN("up0") },
	Reach:   reach,
}

// reach pings from the sandbox to the gateways and from the host back.
func reach(b *nltest.Bed, _ *netns.NS, stub *nltest.StubIPAM) {
	for _, a := range stub.Addresses {
		addr, gw, _ := strings.Cut(a, " ")
		addr, _, _ = strings.Cut(addr, "/")
		b.In(b.Sandbox, func() { b.Run("ping", "-c1", "-W2", gw) })
		b.Run("ping", "-c1", "-W2", addr)
	}
}

func TestLife(t *testing.T) { life.Test(t) }
