package ipvlan

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
)

var life = nltest.Life{
	Name: "ipvlan", Plugin: Plugin, Feature: "ipvlan", Keys: `"master":"up0"`, Layer2: true,
	Prepare: func(b *nltest.Bed) *netns.NS { return b.NewLAN("up0", "10.1.0.1/16", "fd00:1::1/64") },
	Reach:   reach,
}

// reach pings from the sandbox to the LAN and back.
func reach(b *nltest.Bed, lan *netns.NS, stub *nltest.StubIPAM) {
	for _, a := range stub.Addresses {
		addr, gw, _ := strings.Cut(a, " ")
		addr, _, _ = strings.Cut(addr, "/")
		b.In(b.Sandbox, func() { b.Run("ping", "-c1", "-W2", gw) })
		b.In(lan, func() { b.Run("ping", "-c1", "-W2", addr) })
	}
}

func TestLife(t *testing.T) { life.Test(t) }
