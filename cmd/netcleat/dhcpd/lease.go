package dhcpd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/socket"
)

// watch is how often a lease looks whether its sandbox still lives. A namespace
// says nothing when it dies, and whoever would listen inside keeps it alive.
const watch = 30 * time.Second

// background bounds one attempt of a lease that has expired to get another.
const background = 30 * time.Second

// errExpired says that a lease's time is over.
var errExpired = errors.New("expired")

// Why a lease's life ends.
var (
	errReleased  = errors.New("released")                  // by DEL
	errAbandoned = errors.New("nobody waits for it")       // the plugin was killed during ADD
	errReplaced  = errors.New("another sandbox took over") // ADD of the same attachment elsewhere
	errStopped   = errors.New("daemon ends")               // the lease lives on in its file
)

// lease is one address that the daemon keeps for a container. Its goroutine
// alone talks to servers and changes rec.
type lease struct {
	d      *daemon
	after  <-chan struct{} // closed when the lease that this one replaces has ended
	cancel context.CancelCauseFunc
	ready  chan struct{} // closed when the first address has come, or none will
	done   chan struct{} // closed when the goroutine has ended

	waiters int  // for ready; guarded by d.mu
	leaving bool // it is being given back; guarded by d.mu

	mu  sync.Mutex // guards rec.Binding and err for readers
	rec record
	err error // why there is no address to hand out; set wherever there is none

	hold  time.Duration // not before this time is anything done: the host refused the last time
	retry time.Duration // not before this time is a server asked again
	pause time.Duration // between attempts of an expired lease
}

// current returns the binding, or why there is none.
func (l *lease) current() (*binding, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	if b := l.rec.Binding; now() >= b.Expire {
		return nil, fmt.Errorf("lease of %s: %w", b.Address, errExpired)
	}
	return l.rec.Binding, nil
}

// set makes b the lease's binding.
func (l *lease) set(b *binding, err error) {
	l.mu.Lock()
	l.rec.Binding, l.err = b, err
	l.mu.Unlock()
}

func (l *lease) logf(format string, args ...any) {
	l.d.log.Printf("%s/%s/%s: "+format, append([]any{l.rec.ContainerID, l.rec.Network, l.rec.IfName}, args...)...)
}

// run is the goroutine of the lease: from its first message to its last.
func (l *lease) run(ctx context.Context) {
	defer l.d.ended(l)
	if l.after != nil {
		<-l.after
	}
	err := l.begin(ctx)
	if err == nil {
		err = l.keep(ctx)
	}
	if !errors.Is(err, errStopped) {
		l.end(ctx, err)
	}
}

// spread keeps leases that are all due when the daemon returns from asking the
// server all at once.
const spread = 2 * time.Second

// begin gets the first address, unless the lease has come from its file.
func (l *lease) begin(ctx context.Context) error {
	if l.rec.Version != 0 {
		return socket.Pause(ctx, rand.N(spread))
	}
	err := l.first(ctx)
	if err != nil {
		l.logf("no lease: %v", err)
	} else {
		b := l.rec.Binding
		l.logf("lease of %s from %s until %s", b.Address, b.Server, b.Until.Format(time.RFC3339))
	}
	close(l.ready)
	return err
}

func (l *lease) first(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.d.resendTimeout, errNoAnswer)
	defer cancel()
	err := l.d.in(&l.rec, (*sandbox).up)
	if err != nil {
		l.set(nil, err)
		return err
	}
	b, err := l.converse(func(x *exchange) (*binding, error) { return x.acquire(ctx, l.rec.Last) })
	l.set(b, err)
	if err == nil {
		err = l.rec.save(l.d.leases)
		l.set(b, err) // an address that is about to be given back is nobody's
	}
	return err
}

// converse opens the lease's link and has one conversation over it.
func (l *lease) converse(fn func(*exchange) (*binding, error)) (*binding, error) {
	var x *exchange
	err := l.d.in(&l.rec, func(s *sandbox) (err error) {
		x, err = l.open(s)
		return err
	})
	if err != nil {
		return nil, err
	}
	b, err := fn(x)
	// Closing a packet socket waits for the kernel's other processors; nobody
	// else should.
	l.d.later(func() {
		if err := x.close(); err != nil {
			l.logf("packet socket: %v", err)
		}
	})
	return b, err
}

// keep keeps the lease alive until ctx ends or the sandbox is gone.
func (l *lease) keep(ctx context.Context) error {
	for {
		if l.freed() {
			return errReleased
		}
		err := l.d.in(&l.rec, func(*sandbox) error { return nil })
		if errors.Is(err, errGone) {
			return err
		}
		if err == nil {
			err = l.act(ctx)
		}
		if err != nil && ctx.Err() == nil {
			l.logf("%v", err)
			l.hold = now() + time.Second
			if errors.Is(err, errHidden) { // to look for it costs a look at all processes
				l.hold = now() + watch
			}
		}
		if err := socket.Pause(ctx, l.sleep()); err != nil {
			return err
		}
	}
}

// sleep is how long until there is something to do; it is never so long that a
// dead sandbox, or a clock that ran on while the host was suspended, stays
// unnoticed.
func (l *lease) sleep() time.Duration {
	next := l.retry
	if b := l.rec.Binding; b != nil {
		next = min(max(b.Renew, l.retry), b.Expire)
	}
	look := watch - time.Duration(rand.Int64N(int64(watch/10)))
	return max(min(max(next, l.hold)-now(), look), 0)
}

// freed reports whether a DEL that found no daemon has marked the lease.
func (l *lease) freed() bool {
	_, err := os.Lstat(l.d.leases.FreedPath(l.rec.Key))
	return err == nil
}

// act does what the time has come for.
func (l *lease) act(ctx context.Context) error {
	b, t := l.rec.Binding, now()
	switch {
	case b == nil && t >= l.retry:
		return l.again(ctx)
	case b == nil || t < b.Renew || t < l.retry && t < b.Expire:
		return nil
	case t >= b.Expire:
		return l.expire(errExpired)
	case t >= b.Rebind:
		return l.extend(b.Expire, func(x *exchange) (*binding, error) { return x.rebind(ctx, b) })
	default:
		return l.extend(b.Rebind, func(x *exchange) (*binding, error) { return x.renew(ctx, b) })
	}
}

// extend renews or rebinds. Where no server answers, it is tried again after
// half of the time that is left (RFC 2131, 4.4.5).
func (l *lease) extend(until time.Duration, ask func(*exchange) (*binding, error)) error {
	b, err := l.converse(ask)
	if errors.Is(err, errRefused) {
		return l.expire(err)
	}
	if err != nil {
		t := now()
		l.retry = t + max((until-t)/2, min(l.d.timeout, max(until-t, time.Second)))
		return fmt.Errorf("renew %s: %w", l.rec.Binding.Address, err)
	}
	return l.adopt(b)
}

// adopt makes b the lease's binding and the interface's address.
func (l *lease) adopt(b *binding) error {
	old := l.rec.Binding
	if old != nil && old.Address != b.Address {
		l.logf("address changes from %s to %s", old.Address, b.Address)
	}
	l.set(b, nil)
	l.retry, l.pause, l.rec.Last = 0, 0, netip.Addr{}
	err := l.d.in(&l.rec, func(s *sandbox) error { return s.change(old, b, l.rec.Priority) })
	return errors.Join(err, l.rec.save(l.d.leases))
}

// expire takes the address off the interface: it may be another's from now on.
// The lease goes on to ask for a new one.
func (l *lease) expire(cause error) error {
	old := l.rec.Binding
	err := l.d.in(&l.rec, func(s *sandbox) error { return s.change(old, nil, l.rec.Priority) })
	if err != nil {
		return fmt.Errorf("lease of %s %w, address not removed: %w", old.Address, cause, err)
	}
	l.set(nil, fmt.Errorf("lease of %s: %w", old.Address, cause))
	l.rec.Last, l.retry, l.pause = old.Address.Addr(), 0, 0
	l.logf("lease of %s ends (%v): address removed, asking for another", old.Address, cause)
	return l.rec.save(l.d.leases)
}

// again is one attempt of an expired lease to get an address.
func (l *lease) again(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, background, errNoAnswer)
	defer cancel()
	b, err := l.converse(func(x *exchange) (*binding, error) { return x.acquire(ctx, l.rec.Last) })
	if err != nil {
		l.pause = min(max(2*l.pause, l.d.timeout), l.d.resendMax)
		l.retry = now() + l.pause
		return fmt.Errorf("new lease: %w", err)
	}
	l.logf("lease of %s from %s", b.Address, b.Server)
	return l.adopt(b)
}

// end gives the lease back, through the container's link or, where that is gone,
// from the host, and forgets it.
func (l *lease) end(ctx context.Context, why error) {
	if b := l.rec.Binding; b != nil && !errors.Is(why, errReplaced) {
		l.logf("lease of %s ends: %v", b.Address, why)
		if err := l.giveBack(ctx, b); err != nil {
			l.logf("%s not released, it stays taken until %s: %v", b.Address, b.Until.Format(time.RFC3339), err)
		}
	}
	if err := forget(l.d.leases, l.rec.Key); err != nil {
		l.logf("%v", err)
	}
}

func (l *lease) giveBack(ctx context.Context, b *binding) error {
	ctx = context.WithoutCancel(ctx)
	if err := socket.Pause(ctx, l.d.turn()); err != nil {
		return err
	}
	_, err := l.converse(func(x *exchange) (*binding, error) { return nil, x.release(b) })
	if err == nil {
		return nil
	}
	if herr := releaseFromHost(ctx, &l.rec); herr != nil {
		return errors.Join(err, herr)
	}
	l.logf("%s released from the host: %v", b.Address, err)
	return nil
}
