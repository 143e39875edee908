package dnsd

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// crowd is a server that knows n containers of one network behind one alias.
func crowd(t testing.TB, n int) *server {
	t.Helper()
	s, err := newServer(journal.Dir(t.TempDir()), nil)
	must(t, err)
	for i := range n {
		s.book.put(member(i))
	}
	return s
}

func member(i int) *entry {
	a := netip.AddrFrom4([4]byte{10, 1, byte((i + 2) >> 8), byte(i + 2)})
	id := "c" + a.String()
	return &entry{
		Key: journal.Key{Network: "net1", ContainerID: id, IfName: "eth0", Plugin: dnsname.Name}, sandbox: id, created: time.Unix(int64(i), 0),
		State: dnsname.State{
			Domain: "dns.test", Names: []string{"c" + strings.ReplaceAll(a.String(), ".", "-")}, Aliases: []string{"app"},
			Addrs: []netip.Prefix{netip.PrefixFrom(a, 16)}, Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1")}, Link: "br1", Index: 7,
		},
	}
}

// from is the first container's query.
var from = arrival{source: netip.MustParseAddr("10.1.0.2"), index: 7, gateway: netip.MustParseAddr("10.1.0.1")}

// TestTruncated: three thousand containers behind one alias: what fits, and no
// more than the asker takes; over TCP all.
func TestTruncated(t *testing.T) {
	s := crowd(t, 3000)
	for _, c := range []struct {
		name      string
		edns      uint16
		v         via
		size, all int
		truncated bool
	}{
		{"UDP", 0, via{}, 512, 29, true},
		{"UDP, EDNS0", 1400, via{}, 1232, 74, true},
		{"UDP, EDNS0 that would be in fragments", 65000, via{}, 1232, 74, true},
		{"UDP, EDNS0 of nonsense", 1, via{}, 512, 29, true},
		{"TCP", 0, via{tcp: true}, 65535, 3000, false},
	} {
		q := new(dns.Msg).SetQuestion("app.dns.test.", dns.TypeA)
		if c.edns > 0 {
			q.SetEdns0(c.edns, true)
		}
		b, err := q.Pack()
		must(t, err)
		r := s.respond(b, from, c.v)
		m := new(dns.Msg)
		must(t, m.Unpack(r.packet))
		if len(r.packet) > c.size || len(m.Answer) < c.all-2 || len(m.Answer) > c.all || m.Truncated != c.truncated || (m.IsEdns0() != nil) != (c.edns > 0) {
			t.Errorf("%s: %d bytes, %d answers, truncated %v, EDNS0 %v", c.name, len(r.packet), len(m.Answer), m.Truncated, m.IsEdns0())
		}
	}
}

// TestHigher: an answer that does not fit over TCP either has what fits.
func TestHigher(t *testing.T) {
	s := crowd(t, 6000)
	b, err := new(dns.Msg).SetQuestion("app.", dns.TypeA).Pack()
	must(t, err)
	m := new(dns.Msg)
	must(t, m.Unpack(s.respond(b, from, via{tcp: true}).packet))
	if n := len(m.Answer); n < 3900 || m.Truncated {
		t.Errorf("%d answers, truncated %v", n, m.Truncated)
	}
}

// TestAddressOfTheDead: a container that ended without a word is forgotten when
// another has its address, in whichever order their records are read.
func TestAddressOfTheDead(t *testing.T) {
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		s := crowd(t, 0)
		both := [2]*entry{member(0), member(0)}
		both[0].ContainerID, both[0].Names = "dead", []string{"dead"}
		both[1].Names, both[1].created = []string{"alive"}, time.Unix(100, 0)
		for _, i := range order {
			s.book.put(both[i])
		}
		for name, want := range map[string]string{"dead.": "NXDOMAIN", "alive.": "10.1.0.2", "app.": "10.1.0.2"} {
			b, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
			must(t, err)
			m := new(dns.Msg)
			must(t, m.Unpack(s.respond(b, from, via{}).packet))
			if got := short(m); got != want {
				t.Errorf("%s: want %s, got %s", name, want, got)
			}
		}
	}
}

// TestStrangers: who is on none of the networks is refused.
func TestStrangers(t *testing.T) {
	s := crowd(t, 2)
	for name, at := range map[string]arrival{
		"another address":             {source: netip.MustParseAddr("192.0.2.1"), index: 7, gateway: from.gateway},
		"another interface":           {source: from.source, index: 9999, gateway: from.gateway},
		"no interface that is known":  {source: from.source, index: -1, gateway: from.gateway},
		"a neighbour at another door": {source: netip.MustParseAddr("10.1.99.99"), index: 7, gateway: netip.MustParseAddr("10.9.0.1")},
	} {
		b, err := new(dns.Msg).SetQuestion("app.", dns.TypeA).Pack()
		must(t, err)
		m := new(dns.Msg)
		must(t, m.Unpack(s.respond(b, at, via{}).packet))
		if m.Rcode != dns.RcodeRefused {
			t.Errorf("%s: %s", name, short(m))
		}
	}
}

// TestBounds: an asker has so many queries a second, questions at others and
// connections, and the next asker has its own.
func TestBounds(t *testing.T) {
	l := newLimits()
	at := time.Unix(1000, 0)
	l.now = func() time.Time { return at }
	a, b := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.0.3")
	for range queriesPerSecond {
		if !l.query(a) {
			t.Fatal("refused before the bound")
		}
	}
	if l.query(a) || !l.query(b) {
		t.Error("the bound is not the asker's own")
	}
	at = at.Add(time.Second)
	if !l.query(a) {
		t.Error("refused a second later")
	}
	var last func()
	for i := range forwardsPerAsker {
		done, ok := l.forward(a)
		if !ok {
			t.Fatal("refused before the bound", i)
		}
		last = done
	}
	if _, ok := l.forward(a); ok {
		t.Error("more than the bound")
	}
	if _, ok := l.forward(b); !ok {
		t.Error("another asker is refused")
	}
	last()
	if _, ok := l.forward(a); !ok {
		t.Error("refused when one has ended")
	}
	at = at.Add(time.Second)
	l.now = func() time.Time { return at }
	for i := range forwardsPerSecond {
		if done, ok := l.forward(netip.MustParseAddr("10.1.0.4")); ok {
			done()
		} else {
			t.Fatal("refused before the bound", i)
		}
	}
	if _, ok := l.forward(netip.MustParseAddr("10.1.0.4")); ok {
		t.Error("more than the bound in one second")
	}
	at = at.Add(time.Minute)
	l.query(b)
	if len(l.askers) != 2 { // a has questions open
		t.Errorf("%d askers are remembered", len(l.askers))
	}
}

// TestFlood: a container sends garbage and queries without a pause; another one
// on the same network is answered meanwhile.
func TestFlood(t *testing.T) {
	w := newTown(t)
	w.upstream = `,"nameservers":["127.0.0.1:5300"]` // no server listens there
	loud, quiet := named("loud", 2), named("quiet", 3)
	w.add(loud)
	w.add(quiet)
	query, err := new(dns.Msg).SetQuestion("quiet.", dns.TypeA).Pack()
	must(t, err)
	outside, err := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA).Pack()
	must(t, err)
	stop, stopped := make(chan struct{}), make(chan struct{})
	var c net.Conn
	w.In(w.sandbox[loud.id], func() {
		c, err = net.Dial("udp", "10.1.0.1:53")
		must(t, err)
	})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				_ = c.Close()
				return
			default:
			}
			for _, p := range [][]byte{query, outside, []byte("garbage"), query[:11], query[:13]} {
				_, _ = c.Write(p)
			}
		}
	}()
	silent := 0
	for range 100 {
		// As resolvers do, it asks twice before it gives up.
		a := asks{id: quiet.id, name: "loud", patience: 2 * time.Second}
		got := w.answer(a)
		if got != "10.1.0.2" {
			got = w.answer(a)
		}
		if got != "10.1.0.2" {
			silent++
		}
	}
	close(stop)
	<-stopped
	if silent > 3 { // the flood also takes processors
		t.Errorf("%d of 100 questions were not answered", silent)
	}
}

// FuzzRespond: no packet harms the daemon, and what it answers is an answer to the
// query, no longer than the asker takes.
func FuzzRespond(f *testing.F) {
	for _, name := range []string{"app.", "c10-1-0-2.dns.test.", "2.0.1.10.in-addr.arpa.", "www.example.com.", ".", "x.ip6.arpa."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeANY, dns.TypePTR, dns.TypeNS} {
			m := new(dns.Msg).SetQuestion(name, qtype)
			m.SetEdns0(4096, true)
			b, err := m.Pack()
			must(f, err)
			f.Add(b)
		}
	}
	f.Add([]byte("garbage"))
	s := crowd(f, 40)
	f.Fuzz(func(t *testing.T, packet []byte) {
		for _, v := range []via{{}, {tcp: true}} {
			r := s.respond(packet, from, v)
			if r.packet == nil {
				continue
			}
			m := new(dns.Msg)
			if err := m.Unpack(r.packet); err != nil {
				t.Fatalf("not an answer: %v", err)
			}
			if !m.Response || m.Id != uint16(packet[0])<<8|uint16(packet[1]) || !v.tcp && len(r.packet) > udpSize {
				t.Fatalf("%d bytes: %v", len(r.packet), m)
			}
		}
	})
}
