package dnsd

import (
	"net/netip"
	"sync"
	"time"
)

// The bounds of one asker, so that it cannot take the daemon from the others: so
// many queries a second, with a burst of as many; so many that others are
// asked for, a second and at a time; so many connections. And those of all askers together.
const (
	queriesPerSecond  = 50_000
	forwardsPerSecond = 2_000
	forwardsPerAsker  = 64
	forwardsInAll     = 2048
	connsPerAsker     = 32
	connsInAll        = 1024
)

// limits counts what askers do. Who does nothing is forgotten.
type limits struct {
	mu       sync.Mutex
	askers   map[netip.Addr]*usage
	forwards int
	conns    int
	now      func() time.Time
	swept    time.Time
}

type usage struct {
	second   time.Time // when the current second began
	queries  int       // in it
	asked    int       // forwarded in it
	forwards int       // at the moment
	conns    int       // at the moment
}

// tick begins a new second if the last one is over.
func (u *usage) tick(t time.Time) {
	if t.Sub(u.second) >= time.Second {
		u.second, u.queries, u.asked = t, 0, 0
	}
}

func newLimits() *limits { return &limits{askers: map[netip.Addr]*usage{}, now: time.Now} }

func (l *limits) of(a netip.Addr) *usage {
	u := l.askers[a]
	if u == nil {
		u = &usage{}
		l.askers[a] = u
	}
	return u
}

// query counts a query, and reports whether it may be answered.
func (l *limits) query(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.now()
	l.sweep(t)
	u := l.of(a)
	u.tick(t)
	u.queries++
	return u.queries <= queriesPerSecond
}

// sweep forgets askers, which may be as many as there are addresses to invent.
func (l *limits) sweep(t time.Time) {
	const every, crowd = 10 * time.Second, 1 << 16
	if t.Sub(l.swept) < every && len(l.askers) < crowd {
		return
	}
	l.swept = t
	for a, u := range l.askers {
		if u.forwards == 0 && u.conns == 0 && (t.Sub(u.second) >= time.Second || len(l.askers) > crowd) {
			delete(l.askers, a)
		}
	}
}

// forward counts a query that others are asked for, until done is called.
func (l *limits) forward(a netip.Addr) (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.of(a)
	u.tick(l.now())
	if u.asked++; u.asked > forwardsPerSecond || u.forwards >= forwardsPerAsker || l.forwards >= forwardsInAll {
		return nil, false
	}
	u.forwards++
	l.forwards++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		u.forwards--
		l.forwards--
	}, true
}

// connect counts a connection, until done is called.
func (l *limits) connect(a netip.Addr) (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.of(a)
	if u.conns >= connsPerAsker || l.conns >= connsInAll {
		return nil, false
	}
	u.conns++
	l.conns++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		u.conns--
		l.conns--
	}, true
}
