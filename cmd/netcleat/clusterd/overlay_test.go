package clusterd

import (
	"io"
	"log"
	"net/netip"
	"testing"

	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// fakeKernel has an uplink at an address, or none.
type fakeKernel struct {
	at    netip.Addr
	links overlay.Links
	have  *overlay.Network
	calls int
}

func (k *fakeKernel) program(n *overlay.Network) (overlay.State, error) {
	if !k.at.IsValid() {
		return overlay.State{}, overlay.ErrNoUplink
	}
	k.have = n
	k.calls++
	return overlay.State{Host: k.at, Links: k.links}, nil
}

func (k *fakeKernel) find(*overlay.Network) (overlay.Links, error) {
	if !k.at.IsValid() {
		return overlay.Links{}, overlay.ErrNoUplink
	}
	return k.links, nil
}

// memoryStore answers at once.
type memoryStore struct {
	d      *daemon
	rev    int64
	keys   map[string]kv
	leases map[string]int64
}

func (s *memoryStore) txn(t txn, done func(answer)) {
	s.rev++
	for _, c := range append([]compare{t.compare}, t.guards...) {
		if s.keys[c.key].rev != c.rev {
			done(answer{rev: s.rev, now: []kv{s.keys[t.key]}})
			return
		}
	}
	if s.put(t.key, t.value); t.lease != 0 && s.leases != nil {
		s.leases[t.key] = t.lease
	}
	done(answer{ok: true, rev: s.rev})
}

func (s *memoryStore) rewatch() {} // it tells of all changes

func (s *memoryStore) put(key, value string) {
	if s.keys[key] = (kv{key, value, s.rev}); value == "" {
		delete(s.keys, key)
	}
}

// remove has another host's daemon remove a key, or a lease end.
func (s *memoryStore) remove(key string) {
	s.rev++
	delete(s.keys, key)
	s.d.changed(change{kv{key: key}, s.rev})
}

func (s *memoryStore) list(done func(listing)) {
	l := listing{rev: s.rev, cluster: 1}
	for _, k := range s.keys {
		l.keys = append(l.keys, k)
	}
	done(l)
}

// other has another host's daemon write a key.
func (s *memoryStore) other(key, value string) {
	s.rev++
	s.put(key, value)
	s.d.changed(change{s.keys[key], s.rev})
}

// The daemon forwards to each block's owner, says where it is itself, and forwards no
// block of its own.
func TestForward(t *testing.T) {
	pool, err := clusterlocal.ReadPool([]byte(`{"cniVersion":"1.0.0","name":"web","type":"bridge","bridge":"web0","vxlan":{"id":7,"dev":"up0"},
		"ipam":{"type":"cluster-local","blockSize":28,"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00:1::/64"}]]}}`))
	if err != nil {
		t.Fatal(err)
	}
	k := &fakeKernel{}
	store := &memoryStore{keys: map[string]kv{}}
	d := newDaemon(identity{"h1", "s1"}, store, &realHost{pool: pool, leases: map[netip.Addr]string{}}, log.New(io.Discard, "", 0))
	d.forwarder, store.d = k, d
	if err := d.use(pool); err != nil {
		t.Fatal(err)
	}
	if err := d.begin(); err != nil {
		t.Fatal(err)
	}
	answered := 0
	d.ask("web", &request{uplink: true, done: func(err error) {
		if err != nil {
			t.Error(err)
		}
		answered++
	}})
	if answered != 0 {
		t.Error("the uplink that does not exist was called ready")
	}
	k.at, k.links = netip.MustParseAddr("192.0.2.1"), overlay.Links{Uplink: 3, Bridge: 2, Up: true}
	d.linksChanged()
	if answered != 1 || store.keys["net/web/vtep/h1"].value != "7 4789 192.0.2.1" {
		t.Fatalf("%d answers; %v", answered, store.keys)
	}

	store.other("net/web/slot/0000000000000003", "0/4 h2\n")
	if len(k.have.Blocks) != 0 {
		t.Errorf("blocks of a host that is nowhere: %v", k.have.Blocks)
	}
	for value, want := range map[string]string{
		"7 4789 192.0.2.2": "192.0.2.2", "8 4789 192.0.2.2": "", "7 4790 192.0.2.2": "", "7 4789 2001:db8::2": "", "7 4789 192.0.2.1": "", "7 4789 127.0.0.300": "", "7 4789 192.0.2.3": "192.0.2.3",
	} {
		store.other("net/web/vtep/h2", value)
		got := ""
		for _, b := range k.have.Blocks {
			got += b.Host.String()
			if b.Prefixes[0].String() != "10.1.0.48/28" || b.Prefixes[1].String() != "fd00:1::30/124" {
				t.Errorf("%v", b.Prefixes)
			}
		}
		if got != want {
			t.Errorf("%s: frames go to %q, want %q", value, got, want)
		}
	}
	store.other("net/web/vtep/h2", "7 4789 192.0.2.2")

	// Nothing has changed: the kernel is left alone, until it is compared.
	calls := k.calls
	d.tick()
	d.linksChanged()
	if k.calls != calls {
		t.Error("programmed again")
	}
	k.links.Uplink++
	d.linksChanged()
	if k.calls == calls {
		t.Error("a new uplink was not programmed")
	}

	// The block becomes this host's: the entries are deleted before it is used.
	store.other("net/web/slot/0000000000000003", "0/4 h1\n")
	if len(k.have.Blocks) != 0 || len(d.network("web").using) == 0 {
		t.Errorf("%v; in use: %v", k.have.Blocks, d.network("web").using)
	}
}
