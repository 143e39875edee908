package dnsd

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestForward: a server that does not answer, one that refuses, and one that only
// has room for the answer over TCP.
func TestForward(t *testing.T) {
	w := newTown(t)
	refuses := w.serve("127.0.0.1:5301", func(q *dns.Msg, _ string) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure) })
	long := w.serve("127.0.0.1:5302", func(q *dns.Msg, network string) *dns.Msg {
		m := fixed("192.0.2.80")(q, network)
		if m.Truncated = network == "udp"; !m.Truncated {
			m = fixed("192.0.2.81")(q, network)
		}
		return m
	})
	// No server listens at 5300; the one at 5303 never answers.
	silent := w.serve("127.0.0.1:5303", func(*dns.Msg, string) *dns.Msg { return nil })
	w.upstream = `,"nameservers":["127.0.0.1:5300","127.0.0.1:5303","127.0.0.1:5301","127.0.0.1:5302"]`
	web := named("web", 2)
	w.add(web)
	w.want(asks{id: web.id, name: "www.example.com"}, "192.0.2.81")
	w.want(asks{id: web.id, name: "www.example.com", tcp: true}, "192.0.2.81")
	if n := len(silent.seen()); n != 1 {
		t.Errorf("the silent server was asked %d times, not once and then after the others", n)
	}
	if len(refuses.seen()) == 0 || len(long.seen()) != 4 {
		t.Errorf("refusing %v, truncating %v", refuses.seen(), long.seen())
	}
	w.want(asks{id: web.id, name: "com", qtype: dns.TypeNS}, "192.0.2.81")
	w.want(asks{id: web.id, name: "com"}, "NXDOMAIN")
}

// TestSpoofed: unsolicited answers, and answers to another query, are ignored: the
// right one comes after them.
func TestSpoofed(t *testing.T) {
	w := newTown(t)
	w.upstream = `,"nameservers":["127.0.0.1:5300"]`
	var c net.PacketConn
	w.In(w.Host, func() {
		var err error
		c, err = net.ListenPacket("udp4", "127.0.0.1:5300")
		must(t, err)
	})
	defer func() { _ = c.Close() }()
	other := make(chan net.PacketConn, 1)
	w.In(w.Host, func() {
		o, err := net.ListenPacket("udp4", "127.0.0.1:5999")
		must(t, err)
		other <- o
	})
	go liar(c, <-other)
	web := named("web", 2)
	w.add(web)
	w.want(asks{id: web.id, name: "www.example.com"}, "192.0.2.80")
}

// liar answers with garbage, with another ID, to another question, from another
// port, and last with the truth.
func liar(c, elsewhere net.PacketConn) {
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		q := new(dns.Msg)
		if q.Unpack(b[:n]) != nil {
			continue
		}
		lie := func(change func(*dns.Msg)) []byte {
			m := fixed("198.51.100.66")(q, "udp")
			change(m)
			p, _ := m.Pack()
			return p
		}
		_, _ = c.WriteTo([]byte("garbage"), from)
		_, _ = c.WriteTo([]byte(strings.Repeat("garbage", 20)), from)
		_, _ = c.WriteTo(lie(func(m *dns.Msg) { m.Id++ }), from)
		_, _ = c.WriteTo(lie(func(m *dns.Msg) { m.Question[0].Name = "bank.example." }), from)
		_, _ = c.WriteTo(lie(func(m *dns.Msg) { m.Response = false }), from)
		_, _ = elsewhere.WriteTo(lie(func(*dns.Msg) {}), from)
		p, _ := fixed("192.0.2.80")(q, "udp").Pack()
		_, _ = c.WriteTo(p, from)
	}
}

// TestServersOfHost: the host's servers, behind systemd-resolved's stub the real
// ones, again when the file has changed; never an address of our own.
func TestServersOfHost(t *testing.T) {
	dir := t.TempDir()
	u := newUpstreams()
	u.files = []string{filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "real.conf")}
	own := []netip.Addr{netip.MustParseAddr("10.1.0.1")}
	for _, step := range []struct{ file, text, want string }{
		{"resolv.conf", "search example.com\nnameserver 192.0.2.1\nnameserver 10.1.0.1\nnameserver nonsense\nnameserver\n", "[192.0.2.1:53]"},
		{"resolv.conf", "nameserver 127.0.0.53\noptions edns0 trust-ad\n", "[127.0.0.53:53]"},
		{"real.conf", "nameserver 192.0.2.7\nnameserver fd00::7\n", "[192.0.2.7:53 [fd00::7]:53]"},
	} {
		must(t, os.WriteFile(filepath.Join(dir, step.file), []byte(step.text), 0o600))
		u.read = time.Time{}
		if got := fmt.Sprint(u.of(asker{}, own)); got != step.want {
			t.Errorf("%s: want %s, got %s", step.text, step.want, got)
		}
	}
	u.failed(netip.MustParseAddrPort("192.0.2.7:53"))
	if got := fmt.Sprint(u.of(asker{}, own)); got != "[[fd00::7]:53 192.0.2.7:53]" {
		t.Errorf("after a failure: %s", got)
	}
}

// FuzzUpstream: whatever a server answers, the asker gets an answer to its own question,
// with its own ID, no longer than it takes, or none.
func FuzzUpstream(f *testing.F) {
	q := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA).SetEdns0(1232, false)
	query := question(q)
	query.Id = 7
	for _, change := range []func(*dns.Msg){
		func(*dns.Msg) {}, func(m *dns.Msg) { m.Truncated = true }, func(m *dns.Msg) { m.Question = nil },
		func(m *dns.Msg) { m.SetEdns0(65535, true) }, func(m *dns.Msg) { m.SetEdns0(1232, false).Rcode = dns.RcodeBadVers },
		func(m *dns.Msg) {
			for len(m.Answer) < 200 {
				m.Answer = append(m.Answer, m.Answer[0])
			}
		},
	} {
		m := fixed("192.0.2.80")(query, "udp")
		change(m)
		b, err := m.Pack()
		must(f, err)
		f.Add(b)
	}
	f.Add([]byte("garbage"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		m := new(dns.Msg)
		if m.Unpack(packet) != nil || !answers(m, query) {
			return
		}
		for _, v := range []via{{}, {tcp: true}} {
			b := pack(q, received(m.Copy(), q), v)
			got := new(dns.Msg)
			if err := got.Unpack(b); err != nil {
				t.Fatalf("not an answer: %v", err)
			}
			if !got.Response || got.Id != q.Id || !v.tcp && len(b) > udpSize || len(got.Question) != 1 || got.Question[0] != q.Question[0] {
				t.Fatalf("%d bytes: %v", len(b), got)
			}
		}
	})
}

// FuzzServers: no resolv.conf harms the daemon.
func FuzzServers(f *testing.F) {
	for _, text := range []string{"nameserver 192.0.2.1\nnameserver fe80::1%eth0\n", "nameserver\n", "\x00nameserver [::1]:53"} {
		f.Add([]byte(text))
	}
	file := filepath.Join(f.TempDir(), "resolv.conf")
	f.Fuzz(func(t *testing.T, text []byte) {
		must(t, os.WriteFile(file, text, 0o600))
		for _, s := range servers(file) {
			if !s.IsValid() {
				t.Errorf("%q: %v", text, s)
			}
		}
	})
}
