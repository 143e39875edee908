package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netcleat/netcleat/pkg/cnierr"
)

// stormNets are the networks of the storm. None has a default route: containers
// are on several of them.
func stormNets() []list {
	nets := []list{
		chained("one", 1, "nftables"), chained("two", 2, "nftables"), chained("three", 3, "iptables"), chained("four", 4, "iptables"),
		{"mac", []object{{"type": "macvlan", "master": "lan0", "ipam": pool("mac", 5)}}},
		{"wire", []object{{"type": "ptp", "ipMasq": true, "ipMasqBackend": "nftables", "ipam": pool("wire", 6)}}},
	}
	for _, n := range nets[:4] {
		n.plugins[0]["isDefaultGateway"] = false
	}
	return nets
}

// tally counts what a storm did and what went wrong.
type tally struct {
	adds, checks, dels, gcs, kills, again, refused atomic.Int64
	addresses, ports                               atomic.Int64 // given to two
	failures, leaks                                atomic.Int64
}

func (c *tally) String() string {
	return fmt.Sprintf("%d ADD, %d CHECK, %d DEL, %d GC; %d killed, %d told to try again, %d ports refused: %d addresses and %d ports given twice, %d failures, %d leaks",
		c.adds.Load(), c.checks.Load(), c.dels.Load(), c.gcs.Load(), c.kills.Load(), c.again.Load(), c.refused.Load(),
		c.addresses.Load(), c.ports.Load(), c.failures.Load(), c.leaks.Load())
}

// row is the storm in the table.
func (s *storm) row(what string) row {
	return row{
		suite: s.name, what: what, tried: fmt.Sprintf("%d operations, %d of them killed", s.total, s.kills.Load()),
		leaks: s.leaks.Load(), twice: fmt.Sprintf("%d addresses, %d ports", s.addresses.Load(), s.ports.Load()), failures: s.failures.Load(),
	}
}

// storm is what the workers share: the oracle.
type storm struct {
	*testing.T
	tally
	judged
	nets    []*stormNet
	workers int
	total   int64
	ops     atomic.Int64
	judge   func(t *testing.T, bad string)
	warm    bool // what whole attachments leave does not count, by whoever's design

	mu     sync.Mutex
	owners map[string]string // of an address or port, while its attachment lives
	claims map[int]int       // attachments that may have the port
	begun  map[int]int       // claims there have been
}

// stormNet is a network. While a GC runs, nobody new joins: its list would not
// name them, and the runtime would be to blame.
type stormNet struct {
	list
	gate  sync.RWMutex
	mu    sync.Mutex
	known map[*attachment]bool
}

func (s *storm) bad(format string, args ...any) {
	s.Helper()
	s.judge(s.T, fmt.Sprintf(format, args...))
}

// worker works on one sandbox, with a few interfaces.
type worker struct {
	*storm
	*rand.Rand
	name    string
	sandbox *sandbox
	slots   [3]*attachment
	nets    [3]*stormNet
	serial  int
}

// disturbed is a process that may be killed.
func (w *worker) disturbed() *process {
	if w.IntN(5) > 0 {
		return &process{}
	}
	return &process{after: time.Duration(100+w.IntN(15000)) * time.Microsecond}
}

func (w *worker) work() {
	for w.ops.Add(1) <= w.total {
		i := w.IntN(len(w.slots))
		switch n := w.IntN(100); {
		case w.slots[i] == nil:
			w.attach(i)
		case n < 25:
			w.checks.Add(1)
			if err := w.slots[i].check(plain); err != nil && !w.tryAgain(err) {
				w.failed("CHECK", w.slots[i], err)
			}
		case n < 28:
			w.collect(w.nets[i])
		default:
			w.detach(i)
		}
	}
	for i := range w.slots {
		if w.slots[i] != nil {
			w.detach(i)
		}
	}
}

func (w *worker) failed(verb string, a *attachment, err error) {
	w.failures.Add(1)
	w.bad("%s of %s on %s (%s, port %d): %v", verb, a.id, a.list.name, a.ifname, a.port, err)
}

// attach adds an attachment in the slot, unless it fails or is killed.
func (w *worker) attach(i int) {
	n := w.storm.nets[w.IntN(len(w.storm.nets))]
	w.serial++
	a := &attachment{
		judged: w.judged, list: n.list, id: fmt.Sprintf("%s-%d", w.name, w.serial), ifname: fmt.Sprintf("eth%d", i),
		netns: w.sandbox.path, port: 8000 + w.IntN(4*w.workers),
	}
	n.join(a)
	others, begun := w.claim(a.port)
	w.slots[i], w.nets[i] = a, n
	w.adds.Add(1)
	p := w.disturbed()
	err := a.add(p.run)
	if p.killed {
		w.kills.Add(1)
		if w.afterKill(i) {
			return
		}
		err = a.add(plain)
	}
	switch f := (*failure)(nil); {
	case err == nil:
		w.own(a)
		return
	case w.tryAgain(err):
	case errors.As(err, &f) && f.code == cnierr.PortTaken && (others > 0 || w.claimed(a.port, begun)):
		w.refused.Add(1)
	case errors.As(err, &f) && p.killed && (f.code == cnierr.AlreadyAttached || strings.Contains(f.text, "already exists")):
	default:
		w.failed("ADD", a, err)
	}
	w.detach(i)
}

// afterKill does one of the things that runtimes do after a killed ADD, and
// reports whether that was not to try it again.
func (w *worker) afterKill(i int) bool {
	switch w.IntN(3) {
	case 0:
		w.detach(i)
	case 1: // the runtime forgets it, and later collects
		a, n := w.slots[i], w.nets[i]
		n.leave(a)
		w.collect(n)
		w.unclaim(a.port)
		w.slots[i] = nil
	default:
		return false
	}
	return true
}

// detach removes the slot's attachment, and tries until that succeeds.
func (w *worker) detach(i int) {
	a := w.slots[i]
	w.disown(a)
	for try := 0; ; try++ {
		w.dels.Add(1)
		p := w.disturbed()
		err := a.del(p.run)
		if err == nil {
			break
		}
		if p.killed {
			w.kills.Add(1)
			continue
		}
		if !w.tryAgain(err) || try > 50 {
			w.failed("DEL", a, err)
			break
		}
	}
	w.nets[i].leave(a)
	w.unclaim(a.port)
	w.slots[i] = nil
}

func (w *worker) tryAgain(err error) bool {
	f := (*failure)(nil)
	if errors.As(err, &f) && f.code == cnierr.TryAgain {
		w.again.Add(1)
		return true
	}
	return false
}

// collect is GC with all attachments that may be there.
func (w *worker) collect(n *stormNet) {
	n.gate.Lock()
	defer n.gate.Unlock()
	valid := []object{}
	n.mu.Lock()
	for a := range n.known {
		valid = append(valid, object{"containerID": a.id, "ifname": a.ifname})
	}
	n.mu.Unlock()
	w.gcs.Add(1)
	a := &attachment{judged: w.judged, list: n.list}
	if err := a.gc(plain, valid...); err != nil && !w.tryAgain(err) {
		w.failed("GC", a, err)
	}
}

func (n *stormNet) join(a *attachment) {
	n.gate.RLock()
	defer n.gate.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[a] = true
}

func (n *stormNet) leave(a *attachment) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, a)
}

// claim says that an attachment may have the port from now on. It returns how
// many others may, and a number for claimed.
func (s *storm) claim(port int) (others, begun int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	others = s.claims[port]
	s.claims[port]++
	s.begun[port]++
	return others, s.begun[port]
}

// claimed reports whether anybody has claimed the port since.
func (s *storm) claimed(port, since int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun[port] > since
}

func (s *storm) unclaim(port int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims[port]--
}

// things are what only one attachment may have, each with where to count it
// when two have it.
func (s *storm) things(a *attachment) map[string]*atomic.Int64 {
	all := map[string]*atomic.Int64{}
	for _, ip := range a.addresses() {
		all[a.list.name+" address "+ip] = &s.addresses
	}
	for _, p := range a.plugins {
		if p["type"] == "portmap" {
			all[fmt.Sprintf("port %d", a.port)] = &s.ports
		}
	}
	return all
}

// own notes what an attachment was given, which nobody else may have.
func (s *storm) own(a *attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(a.addresses()) != 2 {
		s.bad("%s was given %v", a.id, a.addresses())
	}
	for thing, twice := range s.things(a) {
		if owner := s.owners[thing]; owner != "" {
			twice.Add(1)
			s.bad("%s: given to %s on %s, and %s has it", thing, a.id, a.list.name, owner)
		}
		s.owners[thing] = a.id + " on " + a.list.name
	}
}

// disown is called before the attachment is removed.
func (s *storm) disown(a *attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for thing := range s.things(a) {
		if s.owners[thing] == a.id+" on "+a.list.name {
			delete(s.owners, thing)
		}
	}
}

// warmUp has one attachment come and go on each network.
func (s *storm) warmUp() {
	for _, n := range s.nets {
		sandbox := newSandbox(s)
		a := &attachment{judged: s.judged, list: n.list, id: "first", ifname: "eth0", netns: sandbox.path, port: 8000}
		must(s, errors.Join(a.add(plain), a.del(plain)))
		sandbox.remove()
	}
}

// rage lets the storm pass and looks at what it leaves.
func (s *storm) rage(seed uint64) {
	reset(s)
	if s.warm {
		s.warmUp()
	}
	before := snapshot(s)
	var done sync.WaitGroup
	all := make([]*worker, s.workers)
	for i := range all {
		all[i] = &worker{storm: s, Rand: rand.New(rand.NewPCG(seed, uint64(i))), name: fmt.Sprintf("w%d", i), sandbox: newSandbox(s)}
		defer all[i].sandbox.remove()
	}
	for _, w := range all {
		done.Go(w.work)
	}
	done.Wait()
	for _, n := range s.nets {
		all[0].collect(n)
	}
	left := residue(before, snapshot(s))
	for _, w := range all {
		left = append(left, w.sandbox.links(s)...)
	}
	if s.leaks.Add(int64(len(left))); len(left) > 0 {
		s.bad("left behind:\n\t%s", strings.Join(left, "\n\t"))
	}
}

func newStorm(t *testing.T, j judged) *storm {
	t.Helper()
	s := &storm{
		T: t, judged: j, workers: 16, total: 1000, judge: fails,
		owners: map[string]string{}, claims: map[int]int{}, begun: map[int]int{},
	}
	if full() {
		s.workers, s.total = 64, 10_000/int64(share())
	}
	if n, err := strconv.Atoi(os.Getenv("STORM")); err == nil {
		s.total = int64(n)
	}
	for _, l := range stormNets() {
		s.nets = append(s.nets, &stormNet{list: l, known: map[*attachment]bool{}})
	}
	return s
}

// Many containers come and go at once, some of their calls are killed: no
// address and no port is given to two of them, and nothing is left of any.
func TestStorm(t *testing.T) {
	s := newStorm(t, suite(t))
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	start := time.Now()
	s.rage(seed)
	t.Logf("SEED=%d, %d workers, %.0f s: %v", seed, s.workers, time.Since(start).Seconds(), &s.tally)
	s.row(fmt.Sprintf("storm: %d workers at random on %d networks of both backends", s.workers, len(s.nets))).write(t, "3-storm")
}

// 64 containers of several networks and both backends come at once, are checked
// at once and go at once: no call fails, nobody shares an address, and nothing is
// left.
func TestAtOnce(t *testing.T) {
	s := newStorm(t, suite(t))
	reset(t)
	before := snapshot(t)
	all := make([]*attachment, 64)
	for i := range all {
		sandbox := newSandbox(t)
		defer sandbox.remove()
		all[i] = &attachment{
			judged: s.judged, list: s.nets[i%4].list, id: fmt.Sprintf("c%d", i), ifname: "eth0", netns: sandbox.path, port: 8000 + i,
		}
	}
	atOnce := func(verb string, do func(*attachment) error) {
		var done sync.WaitGroup
		for _, a := range all {
			done.Go(func() {
				if err := do(a); err != nil {
					t.Errorf("%s of %s on %s: %v", verb, a.id, a.list.name, err)
				}
			})
		}
		done.Wait()
	}
	atOnce("ADD", func(a *attachment) error { return a.add(plain) })
	for _, a := range all {
		s.own(a)
	}
	atOnce("CHECK", func(a *attachment) error { return a.check(plain) })
	atOnce("DEL", func(a *attachment) error { return a.del(plain) })
	if left := residue(before, snapshot(t)); len(left) > 0 {
		t.Errorf("left behind:\n\t%s", strings.Join(left, "\n\t"))
	}
}
