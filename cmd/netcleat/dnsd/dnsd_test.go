package dnsd

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// TestNames asks for what a container is called, in every way.
func TestNames(t *testing.T) {
	w := newTown(t)
	web, db := named("Web", 2), named("db", 3)
	web.aliases = `["www","bad name"]`
	w.add(web)
	w.add(db)
	a := asks{id: db.id}
	for name, want := range map[string]string{
		"web": "10.1.0.2", "WEB.": "10.1.0.2", "web.dns.test": "10.1.0.2", "wEb.DNS.test.": "10.1.0.2", "www": "10.1.0.2",
		"web012345678": "10.1.0.2", "db": "10.1.0.3", "nosuch": "NXDOMAIN", "nosuch.dns.test": "NXDOMAIN", "dns.test": "NODATA",
		"2.0.1.10.in-addr.arpa": "NODATA",
	} {
		a.name = name
		w.want(a, want)
	}
	for _, q := range []struct {
		asks
		want string
	}{
		{asks{name: "web", qtype: dns.TypeAAAA}, "fd01::2"},
		{asks{name: "web", qtype: dns.TypeMX}, "NODATA"},
		{asks{name: "web", qtype: dns.TypeANY}, "10.1.0.2 fd01::2"},
		{asks{name: "web", tcp: true}, "10.1.0.2"},
		{asks{name: "web", server: "fd01::1"}, "10.1.0.2"},
		{asks{name: "web", server: "fd01::1", tcp: true}, "10.1.0.2"},
		{asks{name: "2.0.1.10.in-addr.arpa", qtype: dns.TypePTR}, "web.dns.test."},
		{asks{name: "99.0.1.10.in-addr.arpa", qtype: dns.TypePTR}, "NXDOMAIN"},
		{asks{name: "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa", qtype: dns.TypePTR}, "web.dns.test."},
	} {
		q.id = db.id
		w.want(q.asks, q.want)
	}
	w.want(asks{name: "web"}, "10.1.0.2") // the host
	m := w.ask(asks{id: db.id, name: "web", edns: 1400})
	if m == nil || m.IsEdns0() == nil || !m.Authoritative || !m.RecursionAvailable || m.Answer[0].Header().Ttl != 0 {
		t.Errorf("flags, EDNS0 or TTL: %v", m)
	}
}

// TestResult: what the plugin adds to the result, behind what is there.
func TestResult(t *testing.T) {
	w := newTown(t)
	c := w.call(named("web", 2))
	c.Conf = strings.Replace(c.Conf, `"routes":`, `"dns":{"nameservers":["192.0.2.1"],"search":["example.com"]},"routes":`, 1)
	res := w.Must(plugin.Add, c)
	got, err := json.Marshal(res.DNS)
	must(t, err)
	want := `{"nameservers":["10.1.0.1","fd01::1","192.0.2.1"],"domain":"dns.test","search":["example.com","dns.test"]}`
	if string(got) != want {
		t.Errorf("want %s\ngot  %s", want, got)
	}
	w.Must(plugin.Check, c)
	w.Must(plugin.Del, c)
	w.Must(plugin.Del, c)
}

// TestRotation: three containers with one alias: each answer lists all, and they
// begin with each in turn.
func TestRotation(t *testing.T) {
	w := newTown(t)
	for i := range 3 {
		c := named(fmt.Sprint("app", i), 2+i)
		c.aliases = `["app"]`
		w.add(c)
	}
	first := map[string]int{}
	for range 9 {
		got := w.answer(asks{id: named("app0", 2).id, name: "app"})
		if sorted(got) != "10.1.0.2 10.1.0.3 10.1.0.4" {
			t.Fatalf("not all three: %q", got)
		}
		w.ask(asks{id: named("app0", 2).id, name: "app", qtype: dns.TypeAAAA}) // as resolvers do
		first[strings.Fields(got)[0]]++
	}
	for _, a := range []string{"10.1.0.2", "10.1.0.3", "10.1.0.4"} {
		if first[a] != 3 {
			t.Errorf("not evenly: %v", first)
		}
	}
}

// TestNetworks: a container knows the names of all its networks, and of no other.
func TestNetworks(t *testing.T) {
	w := newTown(t)
	w.network(2)
	web, db, both := named("web", 2), named("db", 2), named("both", 4)
	db.network = 2
	w.add(web)
	w.add(db)
	w.add(both)
	second := both
	second.network, second.host = 2, 5
	w.In(w.sandbox[both.id], func() { w.IP("link", "set", "eth0", "name", "eth1") })
	w.Plug(w.sandbox[both.id], "v2-5", "br2", "10.2.0.5/16", "fd02::5/64")
	w.Must(plugin.Add, w.callOf(second, w.PathOf(w.sandbox[both.id])))

	w.want(asks{id: web.id, name: "db"}, "NXDOMAIN")
	w.want(asks{id: web.id, name: "db.dns.test"}, "NXDOMAIN")
	w.want(asks{id: db.id, name: "web", server: "10.2.0.1"}, "NXDOMAIN")
	w.want(asks{id: both.id, name: "db"}, "10.2.0.2")
	w.want(asks{id: both.id, name: "db", server: "10.2.0.1"}, "10.2.0.2")
	w.want(asks{id: both.id, name: "web", server: "10.2.0.1"}, "10.1.0.2")
	if got := sorted(w.answer(asks{id: both.id, name: "both"})); got != "10.1.0.4 10.2.0.5" {
		t.Errorf("own name: %s", got)
	}
	w.Must(plugin.Del, w.callOf(second, w.PathOf(w.sandbox[both.id])))
	w.want(asks{id: both.id, name: "db"}, "NXDOMAIN")
	w.want(asks{id: both.id, name: "web"}, "10.1.0.2")
}

// TestLate: a name answers when ADD returns and not when DEL has, also with a
// daemon that is killed between.
func TestLate(t *testing.T) {
	w := newTown(t)
	w.add(named("asker", 2))
	a := asks{id: named("asker", 2).id, name: "web"}
	for i := range 20 {
		c := w.call(named("web", 3))
		w.Must(plugin.Add, c)
		w.want(a, "10.1.0.3")
		if i%3 == 0 {
			w.kill()
		}
		w.Must(plugin.Del, c)
		if i%3 == 0 {
			w.add(named(fmt.Sprint("other", i), 100+i)) // starts the next
		}
		w.want(a, "NXDOMAIN")
	}
}

// TestKilled: the next call on a network with names has it back, with all names.
func TestKilled(t *testing.T) {
	w := newTown(t)
	w.add(named("web", 2))
	c := w.call(named("web", 2))
	w.kill()
	if got := w.Fails(plugin.Check, c, 102); !strings.Contains(got, "not running") {
		t.Errorf("CHECK: %s", got)
	}
	w.Must(plugin.Del, w.call(named("never", 9)))
	w.add(named("db", 3))
	w.want(asks{id: named("db", 3).id, name: "web"}, "10.1.0.2")
	w.Must(plugin.Check, c)
}

// TestInternal: nothing is forwarded for a container without a way out, whichever
// way it asks; an upstream of the test's own sees what is.
func TestInternal(t *testing.T) {
	w := newTown(t)
	w.network(2)
	up := w.serve("127.0.0.1:5300", fixed("192.0.2.80"))
	w.upstream = `,"nameservers":["127.0.0.1:5300"]`
	out, in := named("out", 2), named("in", 3)
	in.network, in.internal = 2, true
	w.add(out)
	w.add(in)
	w.want(asks{id: out.id, name: "www.example.com"}, "192.0.2.80")
	w.want(asks{id: out.id, name: "www.example.com", tcp: true}, "192.0.2.80")
	n := len(up.seen())
	w.want(asks{id: in.id, name: "tunnel.example.com", server: "10.2.0.1"}, "REFUSED")
	w.want(asks{id: in.id, name: "tunnel.example.com", server: "10.2.0.1", tcp: true}, "REFUSED")
	w.want(asks{id: in.id, name: "in", server: "10.2.0.1"}, "10.2.0.3")
	// With another address of the network, with one of another network's container,
	// and at another network's server.
	w.In(w.sandbox[in.id], func() {
		w.IP("addr", "add", "10.2.7.7/16", "dev", "eth0")
		w.IP("addr", "add", "10.1.0.2/32", "dev", "lo")
		w.IP("route", "add", "10.1.0.1/32", "via", "10.2.0.1")
	})
	for _, from := range []string{"10.2.7.7", "10.1.0.2", "10.2.0.3"} {
		for _, server := range []string{"10.2.0.1", "10.1.0.1"} {
			w.blind(in.id, from, server)
		}
	}
	w.want(asks{id: in.id, name: "in", server: "10.2.0.1"}, "10.2.0.3") // all of it was read
	if got := up.seen()[n:]; len(got) > 0 {
		t.Errorf("the upstream was asked: %v", got)
	}
}

// TestNoTrace refuses each change in turn.
func TestNoTrace(t *testing.T) {
	conf := (&town{}).callOf(named("web", 2), "SANDBOX")
	nltest.NoTrace(t, nltest.Call{Table: conf.Table, Plugin: conf.Plugin, Conf: conf.Conf, Args: conf.Args}, func(b *nltest.Bed) {
		b.Bridge("br1", "10.1.0.1/16", "fd01::1/64")
		b.Run("iptables", "-P", "INPUT", "DROP")
		b.Run("nft", "add table inet mine; add chain inet mine in { type filter hook input priority 0; policy drop; }")
		t.Cleanup((&town{Bed: b}).stop)
	})
}

// TestNoAddress: networks on which the host has no address are refused in words.
func TestNoAddress(t *testing.T) {
	w := newTown(t)
	c := w.call(named("web", 2))
	w.IP("addr", "flush", "dev", "br1")
	if got := w.Fails(plugin.Add, c, 7); !strings.Contains(got, "isGateway") {
		t.Error(got)
	}
}
