package dnsd

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/netcleat/netcleat/cmd/netcleat/names"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// far is an attachment of another host.
func far(name, alias string, addrs ...string) names.Attachment {
	a := names.Attachment{Names: []string{name}}
	if alias != "" {
		a.Aliases = []string{alias}
	}
	for _, text := range addrs {
		a.Addrs = append(a.Addrs, netip.MustParseAddr(text))
	}
	return a
}

// cluster is the cluster daemon of the host.
type cluster struct {
	*town
	line    *names.Line
	changes chan string // "all", or NETWORK ID
}

// join connects the cluster daemon with the dns daemon, as often as that ends.
func (w *town) join() *cluster {
	w.t.Helper()
	c := &cluster{w, &names.Line{Dir: w.Journal()}, make(chan string, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = c.line.Follow(ctx, func() { c.changes <- "all" }, func(network, id string) { c.changes <- network + " " + id })
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	w.t.Cleanup(func() { cancel(); <-done })
	return c
}

// has says what names a host has on a network.
func (c *cluster) has(network, host string, all ...names.Attachment) {
	c.t.Helper()
	_, err := names.Write(c.Journal(), network, host, all)
	must(c.t, err)
	c.line.Tell(network, host)
}

// heard waits for a change.
func (c *cluster) heard(want string) {
	c.t.Helper()
	for {
		select {
		case got := <-c.changes:
			if got == want {
				return
			}
		case <-time.After(10 * time.Second):
			c.t.Fatalf("the cluster daemon was not told of %s", want)
		}
	}
}

// soon waits for an answer.
func (w *town) soon(q asks, want string) {
	w.t.Helper()
	got := ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if got = sorted(w.answer(q)); got == want {
			return
		}
	}
	w.t.Errorf("%+v: want %q, got %q", q, want, got)
}

// TestRemoteNames: containers of other hosts are answered like those of this one, on
// their network alone, also after the daemon was killed.
func TestRemoteNames(t *testing.T) {
	w := newTown(t)
	w.network(2)
	web, db := named("web", 2), named("db", 2)
	web.aliases = `["app"]`
	db.network = 2
	w.add(web)
	w.add(db)
	c := w.join()
	c.heard("all")
	c.has("net1", "h2", far("cache", "app", "10.1.2.2", "fd01::202"))
	c.has("net1", "h3", far("store", "app", "10.1.3.2"), far("web", "", "10.1.3.3"))
	look := func() {
		t.Helper()
		for name, want := range map[string]string{
			"cache": "10.1.2.2", "CACHE.dns.test.": "10.1.2.2", "app": "10.1.0.2 10.1.2.2 10.1.3.2", "web": "10.1.0.2 10.1.3.3", "nosuch": "NXDOMAIN",
		} {
			w.soon(asks{id: web.id, name: name}, want)
		}
		w.want(asks{id: web.id, name: "cache", qtype: dns.TypeAAAA}, "fd01::202")
		w.want(asks{id: web.id, name: "store", qtype: dns.TypeAAAA}, "NODATA")
		w.want(asks{id: web.id, name: "2.2.1.10.in-addr.arpa", qtype: dns.TypePTR}, "cache.dns.test.")
		w.want(asks{id: web.id, name: "9.2.1.10.in-addr.arpa", qtype: dns.TypePTR}, "NXDOMAIN")
		w.want(asks{id: db.id, server: "10.2.0.1", name: "cache"}, "NXDOMAIN")
	}
	look()
	first := map[string]int{}
	for range 9 {
		first[strings.Fields(w.answer(asks{id: web.id, name: "app"}))[0]]++
	}
	if len(first) != 3 || first["10.1.0.2"] != 3 {
		t.Errorf("not evenly: %v", first)
	}

	w.kill()
	must(t, dnsname.Start(t.Context(), w.Journal()))
	look()

	// They go one by one, and with the network's file.
	c.heard("all")
	c.has("net1", "h3", far("web", "", "10.1.3.3"))
	w.soon(asks{id: web.id, name: "store"}, "NXDOMAIN")
	w.soon(asks{id: web.id, name: "app"}, "10.1.0.2 10.1.2.2")
	c.has("net1", "h2")
	c.has("net1", "h3")
	w.soon(asks{id: web.id, name: "web"}, "10.1.0.2")
	w.soon(asks{id: web.id, name: "cache"}, "NXDOMAIN")
}

// TestRemoteNamesComeLater: they are there when a container is attached to the network,
// though no one asked when they were heard of; and again when the last has left.
func TestRemoteNamesComeLater(t *testing.T) {
	w := newTown(t)
	w.network(2)
	_, err := names.Write(w.Journal(), "net2", "h2", []names.Attachment{far("cache", "", "10.2.2.2")})
	must(t, err)
	w.add(named("web", 2)) // which starts the daemon
	db := named("db", 3)
	db.network = 2
	for range 2 {
		w.add(db)
		w.want(asks{id: db.id, server: "10.2.0.1", name: "cache"}, "10.2.2.2")
		w.Must(plugin.Del, w.call(db))
	}
}

// TestRemoteNamesAreBounded: another host's names have addresses of the network, and say
// nothing of a domain.
func TestRemoteNamesAreBounded(t *testing.T) {
	w := newTown(t)
	up := w.serve("127.0.0.1:5353", fixed("192.0.2.80"))
	w.upstream = `,"nameservers":["127.0.0.1:5353"]`
	web := named("web", 2)
	w.add(web)
	c := w.join()
	c.heard("all")
	c.has("net1", "h2", far("good", "", "10.1.2.2"), far("outside", "", "192.0.2.9"), far("other", "", "10.2.0.9"), far("a.example.com", "", "10.1.2.3"))
	w.soon(asks{id: web.id, name: "good"}, "10.1.2.2")
	for name, want := range map[string]string{"outside": "NXDOMAIN", "other": "NXDOMAIN", "a.example.com": "10.1.2.3", "b.example.com": "192.0.2.80", "example.com": "192.0.2.80"} {
		w.want(asks{id: web.id, name: name}, want)
	}
	if got := up.seen(); len(got) != 2 {
		t.Errorf("asked of others: %v", got)
	}
}

// TestFollow: the cluster daemon is told of each attachment that has come or gone, and
// connects again when the dns daemon was killed.
func TestFollow(t *testing.T) {
	w := newTown(t)
	web, db := named("web", 2), named("db", 3)
	w.add(web)
	c := w.join()
	c.heard("all")
	w.add(db)
	c.heard("net1 " + names.ID(db.id, "eth0"))
	records, err := names.Open(w.Journal())
	must(t, err)
	l, ok := records.One("net1", names.ID(db.id, "eth0"))
	if _, err := l.Text(); !ok || err != nil || l.Names[0] != "db" {
		t.Errorf("%+v, %v", l, err)
	}
	w.Must(plugin.Del, w.call(db))
	c.heard("net1 " + names.ID(db.id, "eth0"))
	if l, ok := records.One("net1", names.ID(db.id, "eth0")); ok {
		t.Errorf("after DEL there is %+v", l)
	}
	w.kill()
	w.add(db)
	c.heard("all")
	all, err := records.All("net1")
	if err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
}

// TestFollowersAreBounded: one that does not read is left, and waits for no one.
func TestFollowersAreBounded(t *testing.T) {
	var f followers
	c := f.join()
	for range 2 * backlog {
		f.tell(journal.Key{Network: "web", Plugin: dnsname.Name})
	}
	n := 0
	for range c {
		n++
	}
	if n != backlog {
		t.Errorf("%d of %d changes", n, backlog)
	}
	f.leave(c)
}

// TestManyRemoteNames: names that come and go leave nothing.
func TestManyRemoteNames(t *testing.T) {
	b := newBook()
	local := &entry{}
	local.Network, local.Names = "web", []string{"local"}
	local.Addrs = []netip.Prefix{netip.MustParsePrefix("10.1.0.2/16")}
	b.put(local)
	var list []names.Attachment
	for i := range 1000 {
		list = append(list, far(fmt.Sprint("n", i), "app", fmt.Sprintf("10.1.%d.%d", 1+i/250, 1+i%250)))
	}
	for _, some := range [][]names.Attachment{list, list[:500], list[250:], nil} {
		b.setRemote("web", "h2", some)
		b.setRemote("web", "h3", some)
		n := b.networks["web"]
		if len(n.names) != 1+len(some)+min(1, len(some)) || len(n.remote) != len(some) {
			t.Errorf("%d names and %d addresses of %d containers", len(n.names), len(n.remote), len(some))
		}
	}
	if len(b.remotes) > 0 {
		t.Errorf("left: %v", b.remotes)
	}
	b.setRemote("web", "h2", list)
	b.drop(local.Key)
	b.put(local)
	if got := b.networks["web"].names["app"]; len(got.v4) != len(list) || slices.Contains(got.v4, local.Addrs[0].Addr()) {
		t.Errorf("%d addresses", len(got.v4))
	}
}
