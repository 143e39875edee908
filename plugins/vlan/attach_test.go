package vlan

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
)

// life is an attachment in VLAN 7, which the LAN's router is in, too.
var life = nltest.Life{
	Name: "vlan", Plugin: Plugin, Feature: "vlan", Keys: `"master":"up0","vlanId":7`, Layer2: true,
	Prepare: func(b *nltest.Bed) *netns.NS {
		lan := b.NewLAN("up0")
		b.In(lan, func() {
			b.IP("link", "add", "link", "lan0", "name", "lan0.7", "type", "vlan", "id", "7")
			b.IP("link", "set", "lan0.7", "up")
			b.IP("addr", "add", "10.1.0.1/16", "dev", "lan0.7")
			b.IP("addr", "add", "fd00:1::1/64", "dev", "lan0.7", "nodad")
		})
		return lan
	},
	Reach: reach,
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
