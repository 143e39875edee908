package clusterd

import (
	"container/heap"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/ranges"
	"github.com/netcleat/netcleat/pkg/slot"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// sim is a cluster in one goroutine: time is a queue of events, and all chance comes
// from one seed.
type sim struct {
	rnd               *rand.Rand
	now               int
	queue             events
	seq               int
	hosts             []*simHost
	keys              map[string]kv
	rev               int64
	owner             map[netip.Addr]string // the oracle: who has an address
	dups              []string
	adds              int // that succeeded
	failed            int
	requests, changes int // of the store

	late  int // requests that took effect after their answer was given up
	calm  bool
	keep  bool // operators release no host
	mode  mode
	log   *log.Logger
	ended int // the time at which faults end
}

// mode is what is left out of the protocol, to see that the test notices.
type mode int

const (
	whole mode = iota
	withoutFence
	withLease
)

type event struct {
	at, seq int
	do      func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any     { x := (*e)[len(*e)-1]; *e = (*e)[:len(*e)-1]; return x }

func (s *sim) after(delay int, do func()) {
	s.seq++
	heap.Push(&s.queue, event{s.now + delay, s.seq, do})
}

func (s *sim) run(until int) {
	for len(s.queue) > 0 && s.queue[0].at <= until {
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		e.do()
	}
	s.now = until
}

// Times, in milliseconds.
const (
	simTick    = 1000
	simTimeout = 2000
	simLate    = 9000
)

// simHost is one machine. What is in memory dies with the daemon, the files below run
// with the boot, the disk stays.
type simHost struct {
	s         *sim
	name      string
	disk      memory
	files     map[string]slot.Parts // in /run
	leases    map[netip.Addr]string
	d         *daemon
	boot      int
	starts    int
	suspended bool
	cut       bool
	backlog   []func()
	off       bool
	pool      *clusterlocal.Pool
	waiting   int
	seen      int // when the store last heard of it, for withLease
}

// deliver runs what happens in a daemon, unless it is another one by now.
func (h *simHost) deliver(d *daemon, do func()) {
	switch {
	case h.d != d:
	case h.suspended:
		h.backlog = append(h.backlog, do)
	default:
		do()
	}
}

// simStore is the store as a daemon reaches it.
type simStore struct {
	h *simHost
	d *daemon
}

func (c *simStore) delay() int {
	s := c.h.s
	if s.calm || s.rnd.IntN(3) > 0 {
		return 1 + s.rnd.IntN(5)
	}
	return s.rnd.IntN(simLate)
}

// request carries a request there and its answer back: delayed, lost, or twice.
func (c *simStore) request(apply func() func(), lost func()) {
	s := c.h.s
	answered := false
	answer := func(done func()) {
		s.after(c.delay(), func() {
			if !answered && (!c.h.cut || s.calm) {
				answered = true
				c.h.deliver(c.d, done)
			}
		})
	}
	times := 1
	if !s.calm {
		times = []int{0, 1, 1, 1, 1, 1, 2, 2}[s.rnd.IntN(8)]
	}
	for range times {
		delay := c.delay()
		if c.h.cut && !s.calm {
			delay += s.rnd.IntN(simLate) // it sits in a queue
		}
		s.after(delay, func() {
			if answered {
				s.late++
			}
			c.h.seen = s.now
			answer(apply())
		})
	}
	s.after(simTimeout, func() {
		if !answered {
			answered = true
			c.h.deliver(c.d, lost)
		}
	})
}

var errTime = errors.New("no answer in time")

func (c *simStore) txn(t txn, done func(answer)) {
	c.h.s.requests++
	c.request(func() func() {
		a := c.h.s.apply(t)
		return func() { done(a) }
	}, func() { done(answer{err: errTime}) })
}

func (c *simStore) rewatch() {}

func (c *simStore) list(done func(listing)) {
	c.request(func() func() {
		l := c.h.s.listing()
		return func() { done(l) }
	}, func() { done(listing{err: errTime}) })
}

func (s *sim) listing() listing {
	l := listing{rev: s.rev, cluster: 7}
	for _, k := range slices.Sorted(maps.Keys(s.keys)) {
		l.keys = append(l.keys, s.keys[k])
	}
	return l
}

// apply does what etcd does.
func (s *sim) apply(t txn) answer {
	ok := true
	a := answer{}
	for _, c := range append([]compare{t.compare}, t.guards...) {
		k := s.keys[c.key]
		k.key = c.key
		a.now = append(a.now, k)
		ok = ok && k.rev == c.rev
	}
	if !ok {
		a.rev = s.rev
		return a
	}
	s.put(t.key, t.value)
	s.changes++
	return answer{ok: true, rev: s.rev}
}

func (s *sim) put(key, value string) {
	if _, there := s.keys[key]; value == "" && !there {
		return
	}
	s.rev++
	k := kv{key, value, s.rev}
	if value == "" {
		delete(s.keys, key)
		k.rev = 0
	} else {
		s.keys[key] = k
	}
	at := s.rev
	for _, h := range s.hosts {
		s.watch(h, k, at)
	}
}

// watch brings a change to a host, behind those before it.
func (s *sim) watch(h *simHost, k kv, at int64) {
	d := h.d
	if d == nil {
		return
	}
	delay := 1 + s.rnd.IntN(20)
	if !s.calm && s.rnd.IntN(10) == 0 {
		delay = s.rnd.IntN(simLate)
	}
	w := watches[d]
	w.pending = append(w.pending, func() { d.changed(change{k, at}) })
	s.after(delay, func() {
		if len(w.pending) > 0 && (s.calm || !h.cut) {
			all := w.pending
			w.pending = nil
			for _, do := range all {
				h.deliver(d, do)
			}
		}
	})
}

type watcher struct{ pending []func() }

var watches = map[*daemon]*watcher{}

// The host's files.

func (h *simHost) load() (memory, error)                 { return h.disk, nil }
func (h *simHost) save(m memory) error                   { h.disk = m; return nil }
func (h *simHost) using(p *clusterlocal.Pool) slot.Parts { return h.files[p.Name] }

func (h *simHost) update(p *clusterlocal.Pool, using slot.Parts, change func(view) slot.Parts) error {
	if !h.s.calm && h.s.rnd.IntN(50) == 0 {
		return errors.New("the leases are locked")
	}
	h.files[p.Name] = change(&simView{h, p})
	return nil
}

type simView struct {
	h *simHost
	p *clusterlocal.Pool
}

func (v *simView) idle(p slot.Part) bool     { return v.p.Idle(p, v) }
func (v *simView) free(ps slot.Parts) uint64 { return v.p.Free(ps, v) }

func (v *simView) IsHeld(a netip.Addr) bool { return v.h.leases[a] != "" }
func (v *simView) CountHeld(first, last netip.Addr) (n uint64) {
	for a := range v.h.leases {
		if a.BitLen() == first.BitLen() && !a.Less(first) && !last.Less(a) {
			n++
		}
	}
	return n
}

var _ ranges.Counter = (*simView)(nil)

// start starts the daemon.
func (h *simHost) start() {
	h.starts++
	d := newDaemon(identity{h.name, fmt.Sprintf("%s-%d", h.name, h.starts)}, nil, h, h.s.log)
	d.store = &simStore{h, d}
	d.fence = h.s.mode != withoutFence
	h.d = d
	watches[d] = &watcher{}
	if err := d.use(h.pool); err != nil {
		panic(err)
	}
	_ = d.begin() // the files of a simulation can be read
	h.tick(d)
}

func (h *simHost) tick(d *daemon) {
	h.s.after(simTick, func() {
		if h.d != d {
			return
		}
		h.deliver(d, func() {
			_ = d.retry() // see start
			d.tick()
		})
		h.tick(d)
	})
}

func (h *simHost) crash() {
	h.d, h.suspended, h.backlog, h.waiting = nil, false, nil, 0
}

func (h *simHost) shutDown() {
	h.crash()
	h.off = true
	h.boot++
	h.files = map[string]slot.Parts{}
	for a, id := range h.leases {
		if h.s.owner[a] == id {
			delete(h.s.owner, a)
		}
	}
	h.leases = map[netip.Addr]string{}
}

func (h *simHost) resume() {
	h.suspended = false
	all := h.backlog
	h.backlog = nil
	for _, do := range all {
		do()
	}
}

// add is an ADD: it takes an address that the files allow, or asks the daemon.
func (h *simHost) add(id string, want netip.Addr, tries int) {
	if h.off {
		return
	}
	taken := make([]netip.Addr, 0, 2)
	for i := range h.pool.Sets {
		a, ok := h.free(i, want)
		if !ok {
			h.ask(id, want, tries)
			return
		}
		taken = append(taken, a)
	}
	for _, a := range taken {
		if who := h.s.owner[a]; who != "" {
			h.s.dups = append(h.s.dups, fmt.Sprintf("at %d ms: %s has %s and %s gets it", h.s.now, who, a, id))
		}
		h.s.owner[a], h.leases[a] = id, id
	}
	h.s.adds++
}

func (h *simHost) free(set int, want netip.Addr) (netip.Addr, bool) {
	for _, r := range h.pool.Usable(set, h.files[h.pool.Name]).Ranges() {
		for a := r.First; !r.Last.Less(a); a = a.Next() {
			if a != r.Gateway && h.leases[a] == "" && (!want.IsValid() || want == a || want.BitLen() != a.BitLen()) {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

func (h *simHost) ask(id string, want netip.Addr, tries int) {
	if h.d == nil || tries == 0 || h.leases[want] != "" {
		h.s.failed++
		return
	}
	d, boot := h.d, h.boot
	r := &request{any: !want.IsValid()}
	if want.IsValid() {
		p, _ := h.pool.Find(want)
		r.want = []slot.Part{p}
	}
	open := true
	r.done = func(err error) {
		if !open {
			return
		}
		open = false
		if err != nil || boot != h.boot {
			h.s.failed++
			return
		}
		h.s.after(1, func() { h.add(id, want, tries-1) })
	}
	h.deliver(d, func() { d.ask(h.pool.Name, r) })
	h.s.after(8*simTimeout, func() {
		if open && h.d == d {
			open = false
			h.s.failed++
			h.deliver(d, func() { d.forget(h.pool.Name, r) })
		}
	})
}

func (h *simHost) del() {
	if len(h.leases) == 0 {
		return
	}
	all := slices.SortedFunc(maps.Keys(h.leases), netip.Addr.Compare)
	id := h.leases[all[h.s.rnd.IntN(len(all))]]
	for _, a := range all {
		if h.leases[a] != id {
			continue
		}
		delete(h.leases, a)
		if h.s.owner[a] == id {
			delete(h.s.owner, a)
		}
	}
}

// newSim makes hosts that share a network.
func newSim(t testing.TB, seed uint64, hosts int, ipam string) *sim {
	t.Helper()
	out := io.Discard
	if os.Getenv("SIM_LOG") != "" {
		out = os.Stderr
	}
	s := &sim{rnd: rand.New(rand.NewPCG(seed, 1)), keys: map[string]kv{}, rev: 1, owner: map[netip.Addr]string{}, log: log.New(out, "", 0)}
	for i := range hosts {
		h := &simHost{s: s, name: fmt.Sprintf("h%d", i), files: map[string]slot.Parts{}, leases: map[netip.Addr]string{}, pool: poolNamed(t, "lan", ipam)}
		s.hosts = append(s.hosts, h)
		h.start()
	}
	return s
}

// chaos lets containers come and go and everything fail, for some time.
func (s *sim) chaos(ms, most int) {
	s.ended = s.now + ms
	for _, h := range s.hosts {
		s.busy(h, most)
	}
	if s.mode == withLease {
		s.expire()
	}
	s.trouble()
	for s.now < s.ended && len(s.dups) == 0 {
		s.run(min(s.ended, s.now+1000))
	}
}

// simLease is after which a host loses what it owns, in the mode withLease.
const simLease = 5000

// expire does what etcd would do if ownership had a lease: a host that cannot be
// reached loses its parts.
func (s *sim) expire() {
	for _, h := range s.hosts {
		if h.d != nil && !h.suspended && !h.cut {
			h.seen = s.now
		}
		if s.now-h.seen < simLease {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(s.keys)) {
			of, ok := netKey(key)
			i, isSlot := slotNumber(of.rest)
			if !ok || of.part != slotPart || !isSlot {
				continue
			}
			owners, err := slot.ParseOwners(i, h.pool.Layout.Bits(), s.keys[key].value)
			if err == nil && len(owners[h.name]) > 0 {
				s.put(key, owners.Set(h.name, nil).String())
			}
		}
	}
	s.after(simTick, s.expire)
}

// busy adds and removes containers on a host.
func (s *sim) busy(h *simHost, most int) {
	if s.now > s.ended {
		return
	}
	switch n := s.rnd.IntN(10); {
	case h.off:
	case n < 5 && len(h.leases) < most:
		h.add(fmt.Sprintf("%s/%d", h.name, s.seq), netip.Addr{}, 4)
	case n == 5:
		h.add(fmt.Sprintf("%s/%d", h.name, s.seq), s.anyAddr(h), 4)
	default:
		h.del()
	}
	s.after(50+s.rnd.IntN(200), func() { s.busy(h, most) })
}

func (s *sim) anyAddr(h *simHost) netip.Addr {
	all := h.pool.Layout.Slots()
	p := h.pool.Layout.Prefix(0, h.pool.Layout.Whole(s.rnd.Uint64N(all)))
	for i := range h.pool.Sets[0].Ranges() {
		r := h.pool.Sets[0].Ranges()[i]
		if a := p.Addr(); !a.Less(r.First) && !r.Last.Less(a) && a != r.Gateway {
			return a
		}
	}
	return netip.Addr{}
}

// trouble makes something fail.
func (s *sim) trouble() {
	if s.now > s.ended {
		return
	}
	h := s.hosts[s.rnd.IntN(len(s.hosts))]
	later := 500 + s.rnd.IntN(2*simLate)
	switch n := s.rnd.IntN(12); {
	case h.off || h.d == nil || h.suspended || h.cut:
	case n < 3:
		h.crash()
		s.after(s.rnd.IntN(3000), func() { s.revive(h) })
	case n < 5:
		h.suspended = true
		s.after(later, func() { h.resume() })
	case n < 7:
		h.cut = true
		s.after(later, func() { h.cut = false })
	case n < 8:
		h.shutDown()
		s.after(s.rnd.IntN(5000), func() { h.off = false; s.revive(h) })
	case n < 9 && !s.keep:
		h.shutDown()
		s.releaseHost(h, func() { h.off = false; s.revive(h) })
	}
	s.after(100+s.rnd.IntN(1500), s.trouble)
}

func (s *sim) revive(h *simHost) {
	if h.d == nil && !h.off {
		h.start()
	}
}

// releaseHost is an operator at a host that is off. He repeats the command until it
// succeeds.
func (s *sim) releaseHost(h *simHost, then func()) {
	operator := &simHost{s: s, name: "operator"}
	r := &release{store: &simStore{h: operator}, host: h.name}
	r.done = func(_ uint64, err error) {
		if err != nil {
			s.after(100, func() { s.releaseHost(h, then) })
			return
		}
		then()
	}
	r.begin()
}

// settle ends all faults and waits.
func (s *sim) settle(ms int) {
	s.calm = true
	for _, h := range s.hosts {
		h.cut = false
		if h.suspended {
			h.resume()
		}
	}
	s.run(s.now + ms)
	for _, h := range s.hosts {
		s.revive(h)
	}
	s.run(s.now + ms)
}

// wrong compares what hosts use with what the store says.
func (s *sim) wrong() (all []string) {
	for _, h := range s.hosts {
		if h.d == nil || h.d.state != running {
			all = append(all, fmt.Sprintf("%s does not run: %+v", h.name, h.d.why))
			continue
		}
		var mine slot.Parts
		for _, key := range slices.Sorted(maps.Keys(s.keys)) {
			if of, ok := netKey(key); ok && of.part == slotPart {
				i, _ := slotNumber(of.rest)
				owners, err := slot.ParseOwners(i, h.pool.Layout.Bits(), s.keys[key].value)
				if err != nil {
					all = append(all, err.Error())
				}
				mine = append(mine, owners[h.name]...)
			}
		}
		if !slices.Equal(mine, h.files[h.pool.Name]) {
			all = append(all, fmt.Sprintf("%s owns %v and uses %v", h.name, mine, h.files[h.pool.Name]))
		}
	}
	for key := range s.keys {
		if strings.Contains(key, "/need/") {
			all = append(all, "left: "+key+" "+s.keys[key].value)
		}
	}
	return all
}

// backup is what the store has, to restore it from.
func (s *sim) backup() (map[string]kv, int64) { return maps.Clone(s.keys), s.rev }

// restore has the store forget what came after a backup. A shared etcd may be at any
// revision soon after.
func (s *sim) restore(keys map[string]kv, rev int64) { s.keys, s.rev = maps.Clone(keys), rev }

// reset is an operator at a store that was restored: see Reset.
func (s *sim) reset() {
	s.put(stopKey, "reset")
	for _, h := range s.hosts {
		if _, known := s.keys[hostKeys+h.name]; known {
			s.put(hostKeys+h.name, resetSession)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		if _, ok := netKey(key); ok {
			s.put(key, "")
		}
	}
	s.put(resetKey, fmt.Sprint("r", s.rev))
}
