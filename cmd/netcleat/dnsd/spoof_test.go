package dnsd

import (
	"net"

	"github.com/miekg/dns"
)

// blind sends a query that would be forwarded, and awaits no answer.
func (w *town) blind(id, from, server string) {
	w.t.Helper()
	w.In(w.sandbox[id], func() {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(server), Port: 53})
		must(w.t, err)
		b, err := new(dns.Msg).SetQuestion("tunnel.example.com.", dns.TypeA).Pack()
		must(w.t, err)
		_, err = c.Write(b)
		must(w.t, err)
		must(w.t, c.Close())
	})
}
