package nltest

import "github.com/netcleat/netcleat/pkg/netns"

// NewLAN gives the host a link called name, as a network card is, and returns
// what is at the other end of the cable: a router with the addresses, which are
// usable at once.
func (b *Bed) NewLAN(name string, addrs ...string) *netns.NS {
	b.t.Helper()
	lan := b.NewSandbox()
	b.IP("link", "add", name, "type", "veth", "peer", "name", "lan0", "netns", b.PathOf(lan))
	b.IP("link", "set", name, "up")
	b.In(lan, func() {
		b.IP("link", "set", "lo", "up")
		b.IP("link", "set", "lan0", "up")
		for _, a := range addrs {
			b.IP("addr", "add", a, "dev", "lan0", "nodad")
		}
	})
	return lan
}
