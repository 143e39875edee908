// Package clusterd is the daemon of the plugin cluster-local: it owns blocks of
// addresses for its host, in etcd, and tells the plugin which.
//
// Everything below happens in one loop: answers of the store, its changes, requests
// of plugins and ticks are calls of methods that do not block. docs/adr has why a
// block never has two owners.
package clusterd

import (
	"errors"
	"fmt"
	"log"
	"maps"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/slot"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// local is this host: its files, or a simulation of them.
type local interface {
	// load returns what an earlier daemon of this host saved.
	load() (memory, error)
	save(memory) error
	// using returns what the plugin may hand out of, as an earlier daemon of this boot
	// left it.
	using(pool *clusterlocal.Pool) slot.Parts
	// update locks the leases of a network and replaces what the plugin may hand out
	// of by what change returns. The leases do not change meanwhile.
	update(pool *clusterlocal.Pool, using slot.Parts, change func(view) slot.Parts) error
}

// view is the leases of a network while they are locked.
type view interface {
	// idle reports whether no address of the part is held.
	idle(p slot.Part) bool
	// free returns how many attachments more find addresses in the parts.
	free(ps slot.Parts) uint64
}

// memory is what a daemon leaves to the next one of its host.
type memory struct {
	Sessions []string // which the host's key may have
	Revision int64    // that was seen
	Cluster  uint64   // the ID of the etcd cluster
	Resets   []string // that were seen
	Adopting bool     // what the host uses is still to be written: see adopt
	Entered  int64    // the revision of the host's key, as last written
}

// daemon is the core. Its methods are called by one goroutine.
type daemon struct {
	host    string
	session string // of this start
	store   store
	local   local
	log     *log.Logger
	fence   bool // false only in the test that shows what it is good for

	forwarder   forwarder // nil: this host forwards nothing
	definitions definitions
	namer       namer // nil: this host's containers have no names elsewhere
	lease       int64 // of this host's names; 0: none, or it may have expired

	memory   memory
	saved    int64 // the revision in it that was saved last
	state    state
	why      error // of the states refused and released
	rev      int64 // of the host's key
	stopped  string
	nets     map[string]*network
	hosts    map[string]kv
	status   map[string]kv
	ticks    int
	lastErr  error  // of the store
	mute     string // the error that was logged last, until etcd answers
	count    int    // of requests, for tokens
	dirty    map[string]bool
	restored bool // refused because etcd has forgotten something
}

type state int

const (
	starting state = iota // the session is not written yet
	listing2              // it is, and what the host owns is being read
	running
	released // by an operator: until release-host has finished
	refused  // for good
)

// request is a plugin's that finds no address.
type request struct {
	any    bool
	uplink bool        // it is new, and has to be programmed
	want   []slot.Part // addresses
	token  string      // of the need that was written for it
	done   func(error)
}

// identity says which start of which host's daemon it is.
type identity struct{ host, session string }

func newDaemon(id identity, s store, l local, logger *log.Logger) *daemon {
	return &daemon{
		host: id.host, session: id.session, store: s, local: l, log: logger, fence: true,
		nets: map[string]*network{}, hosts: map[string]kv{}, status: map[string]kv{}, dirty: map[string]bool{},
		definitions: definitions{keys: map[string]kv{}, said: map[string]bool{}},
	}
}

func (d *daemon) network(name string) *network {
	n := d.nets[name]
	if n == nil {
		n = &network{name: name, slots: map[uint64]*slotState{}, needs: map[string]kv{}, denials: map[string]kv{}, idle: map[slot.Part]int{}, uplink: uplink{tunnels: map[string]kv{}}, naming: newNaming()}
		d.nets[name] = n
	}
	return n
}

// use says that this host uses a network.
func (d *daemon) use(pool *clusterlocal.Pool) error {
	n := d.network(pool.Name)
	if n.conf != nil && n.conf.Dir != pool.Dir {
		return fmt.Errorf("network %s: its leases on this host are in %s; another configuration says %s", pool.Name, n.conf.Dir, pool.Dir)
	}
	if n.layout != nil && n.layout.String() != pool.Layout.String() {
		return misfit(n, pool)
	}
	if n.conf == nil {
		n.using = d.local.using(pool)
	}
	n.conf, n.eager = pool, pool.Overlay != nil
	d.dirty[n.name] = true
	return nil
}

func misfit(n *network, pool *clusterlocal.Pool) error {
	return fmt.Errorf("network %s: the cluster has it cut as %q, this host's configuration as %q: the subnets and blockSize must be the same on all hosts", n.name, n.layout, pool.Layout)
}

// ask is called for a plugin that finds no address. done is called once, unless
// forget is called before.
func (d *daemon) ask(net string, r *request) {
	if d.state == refused {
		r.done(d.why)
		return
	}
	n := d.network(net)
	d.count++
	r.token = fmt.Sprintf("%s.%d", d.session, d.count)
	if r.uplink {
		n.renewed()
	}
	n.waiting = append(n.waiting, r)
	d.dirty[net] = true
	d.work()
}

// forget drops a request whose plugin does not wait any more.
func (d *daemon) forget(net string, r *request) {
	n := d.network(net)
	n.waiting = slices.DeleteFunc(n.waiting, func(o *request) bool { return o == r })
	d.dirty[net] = true
	d.work()
}

// tick lets time pass: what failed is tried again. Nothing but economy depends on
// when it is called.
func (d *daemon) tick() {
	d.ticks++
	for name := range d.nets {
		d.dirty[name] = true
	}
	if d.ticks%saveTicks == 0 && d.memory.Revision > d.saved {
		if err := d.local.save(d.memory); err != nil {
			d.log.Print(err)
		}
		d.saved = d.memory.Revision
	}
	if d.ticks%probeTicks == 0 && d.state == running {
		d.probe()
	}
	d.work()
}

// probeTicks is how often an idle daemon looks whether etcd is what it was.
const probeTicks = 15

// probe asks for a change that cannot be: the answer has the store's revision and the
// host's key.
func (d *daemon) probe() {
	d.send(txn{compare: compare{hostKeys + d.host, -1}, value: d.session}, func(answer) {})
}

// saveTicks is how often the revision is saved.
const saveTicks = 30

// work brings all networks forward of which something has changed.
func (d *daemon) work() {
	for len(d.dirty) > 0 && d.state == running {
		name := slices.Min(slices.Collect(maps.Keys(d.dirty)))
		delete(d.dirty, name)
		d.settle(d.nets[name])
		d.exchange(d.nets[name])
	}
	d.define()
}

// send sends a change of the cluster. It takes effect only while this daemon's
// session is the host's, and the cluster is not stopped.
func (d *daemon) send(t txn, done func(answer)) {
	if d.fence {
		t.guards = append(t.guards, compare{hostKeys + d.host, d.rev})
		if !d.memory.Adopting && !strings.HasPrefix(t.key, nameKeys) { // which hand out nothing
			t.guards = append(t.guards, compare{stopKey, 0})
		}
	}
	known, session := d.memory.Revision, d.rev
	d.store.txn(t, func(a answer) {
		if session != d.rev {
			return // of a session that has ended
		}
		d.heard(a.err)
		if a.err == nil && !d.newer(known, a.rev, d.memory.Cluster) {
			return
		}
		if a.err == nil && !a.ok && !d.stillGuarded(a) {
			return
		}
		done(a)
		d.work()
	})
}

// heard takes note of an answer, or of its absence, which it logs once.
func (d *daemon) heard(err error) {
	switch {
	case err == nil && d.mute != "":
		d.mute = ""
		d.log.Print("etcd answers again")
	case err != nil:
		if err.Error() != d.mute {
			d.mute = err.Error()
			d.log.Print(err)
		}
		d.lastErr = err
	}
}

// newer checks an answer against what was known when it was asked for. An etcd that
// was restored from a backup has forgotten changes that hosts rely on.
func (d *daemon) newer(known, rev int64, cluster uint64) bool {
	known = min(known, d.memory.Revision) // which a reset has lowered
	if rev < known || d.memory.Cluster != 0 && cluster != d.memory.Cluster {
		d.forgotten(fmt.Sprintf("it is at revision %d of cluster %x, and has been at %d of cluster %x", rev, cluster, known, d.memory.Cluster))
		return false
	}
	d.memory.Cluster = cluster
	if rev > d.memory.Revision {
		d.memory.Revision = rev
	}
	return true
}

// forgotten refuses an etcd that has lost what hosts rely on.
func (d *daemon) forgotten(what string) {
	d.restored = true
	d.refuse(fmt.Errorf("etcd was restored from an older state: %s. No block changes hands, and hosts use what they have, until `netcleat cluster reset`: see docs/cluster.md", what))
}

// stillGuarded looks at the keys that a refused change depended on.
func (d *daemon) stillGuarded(a answer) bool {
	for _, k := range a.now {
		switch k.key {
		case hostKeys + d.host:
			if k.rev != d.rev && a.rev >= d.rev {
				d.lostSession(k)
				return false
			}
		case stopKey:
			d.stopped = k.value
		}
	}
	return true
}

// refuse ends all changes. What the host uses stays its own.
func (d *daemon) refuse(err error) {
	if d.state == refused {
		return
	}
	d.state, d.why = refused, err
	d.log.Print(err)
	d.fail(err)
}

// fail answers all who wait.
func (d *daemon) fail(err error) {
	for _, n := range d.nets {
		for _, r := range n.waiting {
			r.done(err)
		}
		n.waiting = nil
	}
}

// lostSession is called where the host's key is not this daemon's any more.
func (d *daemon) lostSession(k kv) {
	s, err := parseSession(k.value)
	switch {
	case d.state == refused || d.state == released:
		return
	case k.rev != 0 && err == nil && !s.released && s.id == d.session:
		d.rev = k.rev // our own change, the answer to which was lost
		return
	case k.rev < d.rev: // the key is never deleted, and its revision grows
		d.forgotten(fmt.Sprintf("this host's key has been at revision %d, and is at %d", d.rev, k.rev))
	case err == nil && s.reset:
		d.log.Printf("host %s: an operator has reset the cluster: what this host uses stays its own", d.host)
		d.state = starting
	case err == nil && (s.released || s.removed):
		d.abandon(fmt.Errorf("host %s: an operator has released its blocks; its containers keep their addresses, which others may get: restart them", d.host))
		d.state = released
	default:
		d.abandon(fmt.Errorf("host %s: another daemon has taken this identity (its session is %.80q, this one's %s): is this machine a clone, or its name used twice?", d.host, k.value, d.session))
		d.state = refused
	}
}

// abandon stops the use of everything.
func (d *daemon) abandon(err error) {
	d.why = err
	d.log.Print(err)
	for _, n := range d.nets {
		if n.conf == nil {
			continue
		}
		if uerr := d.replace(n, nil); uerr != nil {
			d.why = errors.Join(d.why, uerr)
		}
	}
	d.fail(err)
}

// replace makes parts what the plugin may use.
func (d *daemon) replace(n *network, parts slot.Parts) error {
	err := d.local.update(n.conf, n.using, func(view) slot.Parts { return parts })
	if err != nil {
		return fmt.Errorf("network %s: %w", n.name, err)
	}
	n.using = parts
	return nil
}
