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
		n = &network{name: name, slots: map[uint64]*slotState{}, needs: map[string]kv{}, denials: map[string]kv{}, idle: map[slot.Part]int{}, uplink: uplink{tunnels: map[string]kv{}}}
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
	}
	d.define()
}

// send sends a change of the cluster. It takes effect only while this daemon's
// session is the host's, and the cluster is not stopped.
func (d *daemon) send(t txn, done func(answer)) {
	if d.fence {
		t.guards = append(t.guards, compare{hostKeys + d.host, d.rev})
		if !d.memory.Adopting { // which hands out nothing
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

// begin makes this daemon the host's. It is called again until it has succeeded.
func (d *daemon) begin() error {
	m, err := d.local.load()
	if err != nil {
		return err
	}
	d.memory = m
	d.list(d.enter)
	return nil
}

// list reads everything.
func (d *daemon) list(done func(listing)) {
	known := d.memory.Revision
	d.store.list(func(l listing) {
		d.heard(l.err)
		if l.err == nil && !d.sawReset(l) && !d.newer(known, l.rev, l.cluster) {
			l = listing{err: d.why}
		}
		done(l)
	})
}

// key returns a key of a listing, or none.
func (l listing) key(key string) kv {
	if i := slices.IndexFunc(l.keys, func(k kv) bool { return k.key == key }); i >= 0 {
		return l.keys[i]
	}
	return kv{}
}

// enter writes the session, in view of the one that is there.
func (d *daemon) enter(l listing) {
	if l.err != nil || d.state != starting && d.state != released {
		return
	}
	now := l.key(hostKeys + d.host)
	s, err := parseSession(now.value)
	switch {
	case now.rev == 0 && d.uses() && !d.memory.Adopting:
		d.forgotten("it does not know this host, which uses blocks")
		return
	case now.rev < d.memory.Entered && now.rev != 0:
		d.forgotten(fmt.Sprintf("this host's key has been at revision %d, and is at %d", d.memory.Entered, now.rev))
		return
	case now.rev == 0:
		d.state = starting
	case err == nil && s.removed:
		d.state = starting
		if !d.comesBack() {
			return // the next tick tries again
		}
	case err == nil && s.reset:
		d.state = starting
		if !d.memory.Adopting {
			d.why = fmt.Errorf("host %s: `netcleat cluster reset` has not finished: run it again", d.host)
			return
		}
	case err != nil:
		d.refuse(fmt.Errorf("etcd key %s: %w", now.key, err))
		return
	case s.released:
		d.state, d.why = released, fmt.Errorf("host %s: `netcleat cluster release-host %s` has not finished: run it again", d.host, d.host)
		return
	case s.id == d.session:
		d.entered(now.rev)
		return
	case !slices.Contains(d.memory.Sessions, s.id):
		d.refuse(fmt.Errorf("host %s: the cluster knows a host of this name that is not this installation (session %s). If that one is running, give this host another name; if it no longer exists: `netcleat cluster release-host %s`", d.host, s.id, d.host))
		return
	}
	d.remember()
	if err := d.local.save(d.memory); err != nil {
		d.log.Print(err)
		return
	}
	t := txn{compare: compare{hostKeys + d.host, now.rev}, value: d.session}
	d.store.txn(t, func(a answer) {
		if a.err == nil && a.ok {
			d.entered(a.rev)
		}
	})
}

// comesBack forgets the blocks that an operator has released meanwhile, and reports
// whether it could.
func (d *daemon) comesBack() bool {
	if d.uses() {
		d.abandon(fmt.Errorf("host %s: an operator has released its blocks; its containers keep their addresses, which others may get: restart them", d.host))
	}
	if d.uses() {
		return false
	}
	d.memory.Adopting = false
	return true
}

// someSessions bounds how many are remembered.
const someSessions = 64

// remember adds the session to those that the host's key may have. Earlier ones stay:
// the write of one may take effect late, after a release.
func (d *daemon) remember() {
	if slices.Contains(d.memory.Sessions, d.session) {
		return
	}
	all := append(d.memory.Sessions, d.session)
	d.memory.Sessions = slices.Clone(all[max(0, len(all)-someSessions):])
}

// entered reads everything again: only now can no request of an earlier daemon take
// effect.
func (d *daemon) entered(rev int64) {
	if d.state == running || d.state == refused {
		return
	}
	d.rev, d.state = rev, listing2
	d.memory.Entered = rev // which is saved with the revision
	d.list(d.run)
}

// run starts with what the cluster says.
func (d *daemon) run(l listing) {
	if l.err != nil || d.state != listing2 {
		return
	}
	d.state, d.why = running, nil
	for _, n := range d.nets {
		n.reset()
	}
	d.relist(l)
	d.adopted()
}

// reset forgets what was asked for in a session that has ended: none of it can take
// effect any more.
func (n *network) reset() {
	n.claiming, n.needing, n.denying, n.uplink.telling = false, false, false, false
	n.pausedTo, n.needTo = 0, 0
	for _, s := range n.slots {
		s.busy, s.claim, s.isLost, s.retiring, s.pausedTo = false, false, false, nil, 0
	}
}

// retry is called by ticks until the daemon runs.
func (d *daemon) retry() error {
	switch d.state {
	case starting, released:
		return d.begin()
	case listing2:
		d.list(d.run)
	case refused:
		if d.restored {
			d.list(d.enter) // until an operator has reset it
		}
	case running:
		d.adopted()
	}
	return nil
}

// relist takes the state of all keys: at the start, and where changes were missed.
func (d *daemon) relist(l listing) {
	there := map[string]bool{}
	for _, k := range l.keys {
		there[k.key] = true
		d.learn(k.key, k, l.rev)
	}
	for _, key := range d.keys() {
		if !there[key] {
			d.learn(key, kv{key: key}, l.rev)
		}
	}
	for name := range d.nets {
		d.dirty[name] = true
	}
	d.work()
}

// keys returns those that the daemon knows of.
func (d *daemon) keys() (all []string) {
	for h := range d.hosts {
		all = append(all, hostKeys+h)
	}
	for h := range d.status {
		all = append(all, statusKeys+h)
	}
	if d.stopped != "" {
		all = append(all, stopKey)
	}
	for name := range d.definitions.keys {
		all = append(all, overlayKeys+name)
	}
	for name, n := range d.nets {
		if n.layoutRev != 0 {
			all = append(all, layoutKey(name))
		}
		for i := range n.slots {
			all = append(all, slotKey(name, i))
		}
		for h := range n.needs {
			all = append(all, needKey(name, h))
		}
		for h := range n.denials {
			all = append(all, denyKey(name, h))
		}
		for h := range n.uplink.tunnels {
			all = append(all, vtepKey(name, h))
		}
	}
	return all
}

// change is the state of a key as of a revision.
type change struct {
	kv
	at int64
}

// changed is called with changes of the store, in its order.
func (d *daemon) changed(all ...change) {
	for _, c := range all {
		if c.at > d.memory.Revision {
			d.memory.Revision = c.at
		}
		d.learn(c.key, c.kv, c.at)
	}
	d.work()
}

// learn takes the state of a key as of a revision.
func (d *daemon) learn(key string, k kv, at int64) {
	if len(k.value) > maxValue {
		d.log.Printf("etcd key %s: larger than %d bytes, ignored", key, maxValue)
		return
	}
	host, isHost := strings.CutPrefix(key, hostKeys)
	from, isStatus := strings.CutPrefix(key, statusKeys)
	defined, isOverlay := strings.CutPrefix(key, overlayKeys)
	ofNet, isNet := netKey(key)
	switch {
	case key == stopKey:
		d.stopped = k.value
	case isHost && slot.IsHost(host):
		keep(d.hosts, host, k, at)
		if host == d.host && d.state == running && k.rev != d.rev && at > d.rev {
			d.lostSession(k)
		}
	case isStatus && slot.IsHost(from):
		keep(d.status, from, k, at)
	case isNet && d.wentBack(ofNet, k, at):
		d.forgotten(fmt.Sprintf("the key %s is at revision %d, and has been later", key, k.rev))
	case isOverlay && isOverlayName(defined):
		keep(d.definitions.keys, defined, k, at)
		d.definitions.changed = true
	case isNet:
		n := d.network(ofNet.net)
		matters := n.matters(ofNet, d.host)
		n.learn(ofNet.part, ofNet.rest, k, at)
		if matters || n.matters(ofNet, d.host) {
			d.dirty[ofNet.net] = true
		}
	}
}

// wentBack reports whether a slot's key has an older revision than it had before.
func (d *daemon) wentBack(of keyOfNet, k kv, at int64) bool {
	i, ok := slotNumber(of.rest)
	if of.part != slotPart || !ok || k.rev == 0 {
		return false
	}
	s := d.network(of.net).slots[i]
	return s != nil && at >= s.seen && k.rev < s.rev
}

// matters reports whether a change of a key is worth a look at the network at once.
// What others own is not, unless a plugin waits: the next tick is soon enough.
func (n *network) matters(of keyOfNet, host string) bool {
	i, isSlot := slotNumber(of.rest)
	if of.part != slotPart || !isSlot || n.eager || len(n.waiting) > 0 {
		return true
	}
	s := n.slots[i]
	return s != nil && (s.busy || len(s.owners[host]) > 0)
}

func (n *network) learn(part, rest string, k kv, at int64) {
	switch {
	case part == layoutPart && rest == "":
		n.layoutRev, n.layout = k.rev, nil
		if l, err := slot.ParseLayout(k.value); err == nil && k.rev != 0 {
			n.layout = &l
			n.reread()
		}
	case part == slotPart:
		if i, ok := slotNumber(rest); ok {
			n.learnSlot(i, k, at)
		}
	case part == needPart && slot.IsHost(rest):
		keep(n.needs, rest, k, at)
	case part == denyPart && slot.IsHost(rest):
		keep(n.denials, rest, k, at)
	case part == vtepPart && slot.IsHost(rest):
		keep(n.uplink.tunnels, rest, k, at)
	}
}

func (n *network) learnSlot(i uint64, k kv, at int64) {
	s := n.slot(i)
	if n.layout == nil { // which comes later in a listing: see reread
		if at >= s.seen {
			s.seen, s.unread = at, &k
		}
		return
	}
	n.read(s, at, k, i)
}

// read reads a slot. One that the network does not have belongs to no one.
func (n *network) read(s *slotState, at int64, k kv, i uint64) {
	s.learn(at, k, n.layout.Bits(), i)
	if i >= n.layout.Slots() && s.bad == nil {
		s.owners, s.bad = nil, fmt.Errorf("slot %d: not in the network", i)
	}
}

// reread reads the slots that were seen before the layout was known.
func (n *network) reread() {
	for i, s := range n.slots {
		if s.unread != nil {
			k := *s.unread
			s.unread = nil
			n.read(s, s.seen, k, i)
		}
	}
}

// keep takes the state of a key that it had at a revision, unless a newer one is
// known.
func keep(all map[string]kv, name string, k kv, at int64) {
	switch had := all[name]; {
	case k.rev == 0 && at > had.rev:
		delete(all, name)
	case k.rev == 0:
	case k.rev > had.rev:
		all[name] = k
	}
}
