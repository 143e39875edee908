// Package dhcpd holds the leases that the dhcp plugin hands out: it asks DHCP
// servers for them, keeps them alive, and gives them back.
//
// A lease is one goroutine and one file. It neither keeps a thread nor holds the
// container's namespace: it goes in for the moment of an exchange, so that a
// dead container is dead, and its lease released. The files outlive the daemon;
// the next one carries on with them.
package dhcpd

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"sync"
	"time"

	dhcp "github.com/netcleat/netcleat/plugins/dhcp-ipam"
)

// insiders is how many threads at most are in sandboxes at a time, and closers
// how many wait for the kernel to close a packet socket: about 10 ms, which they
// share.
const (
	insiders = 4
	closers  = 8
)

// daemon is all leases.
type daemon struct {
	settings
	log     *log.Logger
	leases  dhcp.Leases
	enter   chan struct{} // a place for each of the insiders
	closing chan struct{} // and of the closers
	life    context.Context

	mu          sync.Mutex
	table       map[dhcp.Key]*lease
	nextRelease time.Duration // when the next RELEASE may be sent
}

func newDaemon(ctx context.Context, s settings, logger *log.Logger) *daemon {
	return &daemon{
		settings: s, log: logger, leases: dhcp.LeasesOf(s.hostPrefix + s.socketPath), life: ctx,
		enter: make(chan struct{}, insiders), closing: make(chan struct{}, closers), table: map[dhcp.Key]*lease{},
	}
}

// later runs fn when one of the few places is free; nobody waits for it.
func (d *daemon) later(fn func()) {
	go func() {
		d.closing <- struct{}{}
		fn()
		<-d.closing
	}()
}

// releaseGap is the least time between two RELEASEs. There is no answer to them:
// when a whole node is drained, what overflows the server's buffer is lost, and
// the address stays taken.
const releaseGap = 4 * time.Millisecond

// turn returns how long a RELEASE has to wait.
func (d *daemon) turn() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := now()
	d.nextRelease = max(d.nextRelease+releaseGap, t)
	return d.nextRelease - t
}

// start starts a lease after the one that it replaces, if any; d.mu is held.
func (d *daemon) start(r record, after *lease) *lease {
	ctx, cancel := context.WithCancelCause(d.life)
	l := &lease{d: d, rec: r, cancel: cancel, ready: make(chan struct{}), done: make(chan struct{})}
	if after != nil {
		after.cancel(errReplaced)
		l.after = after.done
	}
	d.table[r.Key] = l
	go l.run(ctx)
	return l
}

// ended takes a lease that has ended out of the table.
func (d *daemon) ended(l *lease) {
	l.cancel(nil)
	d.mu.Lock()
	if d.table[l.rec.Key] == l {
		delete(d.table, l.rec.Key)
	}
	d.mu.Unlock()
	close(l.done)
}

// load takes up the leases of the daemon before this one, and gives back those
// that a DEL has marked since.
func (d *daemon) load() error {
	live, freed, err := d.leases.Files()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, path := range slices.Concat(freed, live) { // a mark counts for more than the lease
		r, err := readRecord(path)
		if err != nil {
			d.log.Printf("%v (left alone)", err)
			continue
		}
		if _, ok := d.table[r.Key]; !ok {
			d.resume(*r)
		}
	}
	return nil
}

// resume carries on with a lease from its file. It is as good as it was: what
// has become of the sandbox it finds out in a moment.
func (d *daemon) resume(r record) {
	ctx, cancel := context.WithCancelCause(d.life)
	l := &lease{d: d, rec: r, cancel: cancel, ready: make(chan struct{}), done: make(chan struct{})}
	if r.Binding == nil {
		l.err = fmt.Errorf("%w: it expired while no daemon ran", errNoLease)
	}
	close(l.ready)
	d.table[r.Key] = l
	go l.run(ctx)
}

// size is the number of leases.
func (d *daemon) size() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.table)
}

// stop ends all leases' goroutines; the leases live on in their files.
func (d *daemon) stop() {
	d.mu.Lock()
	all := make([]*lease, 0, len(d.table))
	for _, l := range d.table {
		all = append(all, l)
	}
	d.mu.Unlock()
	for _, l := range all {
		<-l.done
	}
}

// errNoLease says that an attachment holds no address.
var errNoLease = errors.New("no lease")

// allocate returns the attachment's lease, and gets one where it has none. Of
// several calls at a time for one attachment the first gets it for all.
func (d *daemon) allocate(ctx context.Context, r record) (*binding, error) {
	l, err := d.join(ctx, r)
	if err != nil {
		return nil, err
	}
	select {
	case <-l.ready:
	case <-ctx.Done():
	}
	d.leave(l)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return l.current()
}

// join finds or starts the lease that r asks for, and counts the caller among
// those who wait for it.
func (d *daemon) join(ctx context.Context, r record) (*lease, error) {
	for {
		d.mu.Lock()
		l := d.table[r.Key]
		ending := l != nil && l.leaving
		if !ending {
			if l == nil || !l.serves(r) {
				l = d.start(r, l)
			}
			l.waiters++
		}
		d.mu.Unlock()
		if !ending {
			return l, nil
		}
		select { // its RELEASE must not come after our REQUEST
		case <-l.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// leave takes the caller off those who wait. A lease that nobody waits for any
// more, and that has not come yet, is not worth having.
func (d *daemon) leave(l *lease) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.waiters--
	select {
	case <-l.ready:
	default:
		if l.waiters == 0 {
			l.leaving = true
			l.cancel(errAbandoned)
		}
	}
}

// serves reports whether the lease is for the sandbox and link that r names, and
// has an address or is about to get its first.
func (l *lease) serves(r record) bool {
	if !l.rec.NetnsID.Same(r.NetnsID) || l.rec.Index != r.Index {
		return false
	}
	select {
	case <-l.ready:
		_, err := l.current()
		return err == nil
	default:
		return true
	}
}

// check returns the attachment's lease. It never gets one.
func (d *daemon) check(r record) (*binding, error) {
	d.mu.Lock()
	l := d.table[r.Key]
	d.mu.Unlock()
	if l == nil {
		return nil, errNoLease
	}
	select {
	case <-l.ready:
	default:
		return nil, fmt.Errorf("%w yet", errNoLease)
	}
	b, err := l.current()
	if err == nil && !l.rec.NetnsID.Same(r.NetnsID) {
		return nil, fmt.Errorf("%w: the one of this name is for another sandbox", errNoLease)
	}
	return b, err
}

// release gives the attachment's lease back, if it has one, and returns when the
// server has been told.
func (d *daemon) release(ctx context.Context, k dhcp.Key) error {
	d.mu.Lock()
	l := d.table[k]
	if l != nil {
		l.leaving = true
		l.cancel(errReleased)
	}
	d.mu.Unlock()
	if l == nil {
		// The mark of a DEL that has been answered here after all.
		return forget(d.leases, k)
	}
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
