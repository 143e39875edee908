package clusterd

import (
	"errors"
	"io"
	"log"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/names"
	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// fakeNamer is a host's records, and what its dns daemon reads.
type fakeNamer struct {
	own    map[string]names.Local
	files  map[string]string // by host
	wanted int
	broken string // the host of which nothing can be written
}

func (f *fakeNamer) all(string) (map[string]names.Local, error) { return f.own, nil }

func (f *fakeNamer) one(_, id string) (l names.Local, ok bool) {
	l, ok = f.own[id]
	return l, ok
}

func (f *fakeNamer) hosts(string) (all []string) {
	for h := range f.files {
		all = append(all, h)
	}
	return all
}

func (f *fakeNamer) write(_, host string, all []names.Attachment) error {
	if host == f.broken {
		return errors.New("disk full")
	}
	var words []string
	for _, a := range all {
		words = append(words, a.Names[0])
		for _, ip := range a.Addrs {
			words = append(words, ip.String())
		}
	}
	if f.files[host] = strings.Join(words, " "); len(all) == 0 {
		delete(f.files, host)
	}
	return nil
}

func (f *fakeNamer) wantLease() { f.wanted++ }

// put has a container with a name.
func (f *fakeNamer) put(id, name, addr string, made int) {
	f.own[id] = names.Local{Attachment: names.Attachment{Names: []string{name}, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}, Created: time.Unix(int64(made), 0)}
}

// namedHost is the daemon of h1 on an overlay network in blocks of sixteen, of which h1
// has the first, h2 the fourth and h3 the fifth.
func namedHost(t *testing.T) (*daemon, *memoryStore, *fakeNamer) {
	t.Helper()
	pool, err := clusterlocal.ReadPool([]byte(`{"cniVersion":"1.0.0","name":"web","type":"bridge","bridge":"web0","vxlan":{"id":7,"dev":"up0"},
		"ipam":{"type":"cluster-local","blockSize":28,"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00:1::/64"}]]}}`))
	if err != nil {
		t.Fatal(err)
	}
	store, f := &memoryStore{keys: map[string]kv{}, leases: map[string]int64{}}, &fakeNamer{own: map[string]names.Local{}, files: map[string]string{}}
	d := newDaemon(identity{"h1", "s1"}, store, &realHost{pool: pool, leases: map[netip.Addr]string{}}, log.New(io.Discard, "", 0))
	d.forwarder, d.namer, store.d = &fakeKernel{at: netip.MustParseAddr("192.0.2.1"), links: overlay.Links{Uplink: 3, Bridge: 2, Up: true}}, f, d
	if err := d.use(pool); err != nil {
		t.Fatal(err)
	}
	if err := d.begin(); err != nil {
		t.Fatal(err)
	}
	d.tick()
	store.other("net/web/slot/0000000000000003", "0/4 h2\n")
	store.other("net/web/slot/0000000000000004", "0/4 h3\n")
	return d, store, f
}

// named are the keys of names.
func (s *memoryStore) named() string {
	var all []string
	for key, k := range s.keys {
		if id, ok := strings.CutPrefix(key, "names/web/h1/"); ok && k.rev != 0 {
			all = append(all, id+"="+strings.TrimSuffix(strings.TrimPrefix(k.value, `{"names":["`), `"]}`))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// etcd has the names of this host's containers with its lease, and after the lease has
// expired with another one.
func TestAnnounce(t *testing.T) {
	d, store, f := namedHost(t)
	look := func(want string) {
		t.Helper()
		if got := store.named(); got != want {
			t.Errorf("etcd has %q, want %q", got, want)
		}
	}
	f.put("c1:eth0", "a", "10.1.0.2", 1)
	d.namesUnknown()
	look("")
	if f.wanted == 0 {
		t.Error("no lease is wanted")
	}
	d.leased(5)
	look(`c1:eth0=a"],"addrs":["10.1.0.2`)
	if l := store.leases["names/web/h1/c1:eth0"]; l != 5 {
		t.Errorf("written with lease %d", l)
	}

	// One more, at the address of one that ended without a DEL.
	f.put("c2:eth0", "b", "10.1.0.2", 2)
	d.nameChanged("web", "c2:eth0")
	look(`c2:eth0=b"],"addrs":["10.1.0.2`)
	rev := store.rev
	d.tick()
	if store.rev != rev {
		t.Error("written again, though nothing has changed")
	}

	// The lease expires, and with it the keys.
	d.leased(0)
	store.remove("names/web/h1/c2:eth0")
	look("")
	d.leased(6)
	look(`c2:eth0=b"],"addrs":["10.1.0.2`)
	if l := store.leases["names/web/h1/c2:eth0"]; l != 6 {
		t.Errorf("written with lease %d", l)
	}
	d.leased(7)
	if l := store.leases["names/web/h1/c2:eth0"]; l != 7 {
		t.Errorf("the name is left with lease %d, which ends", l)
	}

	// What others write, or an earlier daemon has left, does not stay.
	store.other("names/web/h1/c9:eth0", `{"names":["x"],"addrs":["10.1.0.3"]}`)
	store.other("names/web/h1/c2:eth0", `{"names":["x"],"addrs":["10.1.0.3"]}`)
	look(`c2:eth0=b"],"addrs":["10.1.0.2`)
	delete(f.own, "c2:eth0")
	d.nameChanged("web", "c2:eth0")
	look(`c1:eth0=a"],"addrs":["10.1.0.2`)
	clear(f.own)
	d.namesUnknown()
	look("")
}

// What another host says counts at addresses of its own blocks, while it has them.
func TestHear(t *testing.T) {
	d, store, f := namedHost(t)
	look := func(why, want string) {
		t.Helper()
		if got := f.files["h2"]; got != want {
			t.Errorf("%s: the dns daemon reads %q, want %q", why, got, want)
		}
	}
	const key = "names/web/h2/c1:eth0"
	for value, want := range map[string]string{
		`{"names":["a"],"addrs":["10.1.0.50"]}`:              "a 10.1.0.50",
		`{"names":["a"],"addrs":["10.1.0.50","fd00:1::32"]}`: "a 10.1.0.50 fd00:1::32",
		`{"names":["a"],"addrs":["10.1.0.50","fd00:1::42"]}`: "a 10.1.0.50",
		`{"names":["a"],"addrs":["10.1.0.66"]}`:              "", // h3's
		`{"names":["a"],"addrs":["10.1.0.2"]}`:               "", // this host's
		`{"names":["a"],"addrs":["10.1.0.1"]}`:               "", // the gateway's
		`{"names":["a"],"addrs":["10.1.0.98"]}`:              "", // no one's
		`{"names":["a"],"addrs":["10.2.0.50"]}`:              "", // of no network
		`{"names":["A b"],"addrs":["10.1.0.50"]}`:            "",
		`nonsense`: "",
		`{"names":["a"],"addrs":["10.1.0.51"],"domain":"com","gateways":["192.0.2.66"]}`: "a 10.1.0.51",
	} {
		store.other(key, value)
		look(value, want)
	}
	const good = `{"names":["a"],"addrs":["10.1.0.50"]}`
	for _, key := range []string{"names/web/h2", "names/web/h2/", "names/web/h2/c1", "names/web/h2/c1:eth0/x", "names/web/h2/../c1:eth0", "names/web/../h2/c1:eth0", "names/web//c1:eth0"} {
		store.other(key, good)
	}
	store.other(key, `nonsense`)
	look("keys of another form", "")

	store.other(key, good)
	store.other("names/web/h2/c2:eth0", `{"names":["b"],"addrs":["10.1.0.50"]}`)
	look("two containers with one address", "b 10.1.0.50")
	store.remove("names/web/h2/c2:eth0")
	look("one of them is deleted", "a 10.1.0.50")
	store.other("net/web/slot/0000000000000003", "0/3 h3\n8/3 h2\n")
	look("h2 has lost the block", "")
	store.other("net/web/slot/0000000000000003", "0/4 h2\n")
	look("h2 has it again", "a 10.1.0.50")

	// Without the uplink the network has no names of others: it may be another network's name by now.
	kernel, _ := d.forwarder.(*fakeKernel)
	at := kernel.at
	kernel.at = netip.Addr{}
	d.linksChanged()
	d.tick()
	look("no uplink", "")
	kernel.at = at
	d.linksChanged()
	d.tick()
	look("the uplink is back", "a 10.1.0.50")

	// As long as an operator has stopped the cluster, as for a reset, they are what they were.
	store.other("stop", "reset x")
	store.remove("net/web/slot/0000000000000003")
	look("stopped", "a 10.1.0.50")
	store.other("net/web/slot/0000000000000003", "0/4 h2\n")
	store.remove("stop")
	d.tick()
	look("resumed", "a 10.1.0.50")

	store.remove(key)
	look("deleted", "")
}

// Names that an earlier daemon of this host has written, and that etcd does not have any
// more, do not stay.
func TestHearAfterRestart(t *testing.T) {
	d, store, f := namedHost(t)
	store.other("names/web/h3/c1:eth0", `{"names":["c"],"addrs":["10.1.0.66"]}`)
	f.files["h2"], f.files["h9"], f.files["h3"] = "old", "older", "other"
	next := newDaemon(identity{"h1", "s2"}, store, d.local, log.New(io.Discard, "", 0))
	next.forwarder, next.namer, store.d = d.forwarder, f, next
	if err := next.use(d.nets["web"].conf); err != nil {
		t.Fatal(err)
	}
	if err := next.begin(); err != nil {
		t.Fatal(err)
	}
	next.tick()
	if len(f.files) != 1 || f.files["h3"] != "c 10.1.0.66" {
		t.Errorf("the dns daemon reads %v", f.files)
	}
}

// The names of one host that cannot be written hold up those of no other.
func TestHearOthers(t *testing.T) {
	d, store, f := namedHost(t)
	f.broken = "h2"
	for range 20 { // in the order of a map
		store.remove("names/web/h3/c1:eth0")
		delete(f.files, "h3")
		d.ticks += backoff
		store.other("names/web/h2/c1:eth0", `{"names":["b"],"addrs":["10.1.0.50"]}`)
		d.ticks += backoff
		store.other("names/web/h3/c1:eth0", `{"names":["c"],"addrs":["10.1.0.66"]}`)
		if f.files["h3"] != "c 10.1.0.66" {
			t.Fatalf("the dns daemon reads %v", f.files)
		}
	}
}

// release-host removes the names of the host, and no others.
func TestReleaseRemovesNames(t *testing.T) {
	_, store, _ := namedHost(t)
	for _, h := range []string{"h2", "h3"} {
		store.other("names/web/"+h+"/c1:eth0", `{"names":["a"],"addrs":["10.1.0.50"]}`)
	}
	store.other("host/h2", "s2")
	r := &release{store: store, host: "h2", done: func(_ uint64, err error) {
		if err != nil {
			t.Error(err)
		}
	}}
	r.begin()
	if k := store.keys["names/web/h2/c1:eth0"]; k.rev != 0 {
		t.Errorf("left: %v", k)
	}
	if k := store.keys["names/web/h3/c1:eth0"]; k.rev == 0 {
		t.Error("the names of another host are removed")
	}
}
