package bridge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// add attaches one more container with the addresses and returns its sandbox.
func add(b *nltest.Bed, id, keys string, addrs ...string) (nltest.Call, *netns.NS) {
	ns := b.NewSandbox()
	c := call(&nltest.StubIPAM{Addresses: addrs}, keys)
	c.ContainerID, c.Netns = id, b.PathOf(ns)
	b.Must(plugin.Add, c)
	return c, ns
}

// pingFrom sends one echo request and says whether it was answered within a
// second.
func pingFrom(b *nltest.Bed, ns *netns.NS, to string) (ok bool) {
	b.In(ns, func() { _, ok = b.Try("ping", "-c1", "-W1", to) })
	return ok
}

// A container that remembers the address's last owner reaches the new one at
// once, and so does the new one's first packet.
func TestAddressReuseAmongContainers(t *testing.T) {
	for _, addrs := range [][]string{{"10.1.0.2/16", "10.1.0.3/16"}, {"fd00:1::2/64", "fd00:1::3/64"}} {
		t.Run(addrs[1], func(t *testing.T) {
			bed := nltest.New(t)
			_, peer := add(bed, "peer", "", addrs[0])
			reused, _, _ := strings.Cut(addrs[1], "/")
			peers, _, _ := strings.Cut(addrs[0], "/")
			for i := range 5 {
				c, ns := add(bed, fmt.Sprint("c", i), "", addrs[1])
				if !pingFrom(bed, peer, reused) {
					bed.In(peer, func() { t.Errorf("owner %d is not reached:\n%s", i, bed.IP("neigh")) })
				}
				if !pingFrom(bed, ns, peers) {
					t.Errorf("owner %d does not reach", i)
				}
				bed.Must(plugin.Del, c)
			}
		})
	}
}
