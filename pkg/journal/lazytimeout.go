package journal

import (
	"context"
	"sync"
	"time"
)

// LazyTimeout is context.WithTimeout for waits that hardly ever come to pass: it
// starts a timer when somebody waits for Done, and not before. The first timer of
// a process starts the runtime's poller and a thread for it, which takes as long
// as a dozen system calls.
func LazyTimeout(parent context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	p := &lazyTimeout{Context: parent, until: time.Now().Add(wait)}
	return p, p.cancel
}

type lazyTimeout struct {
	context.Context // the parent
	until           time.Time

	mu    sync.Mutex
	timed context.Context // nil until Done is asked for
	stop  context.CancelFunc
	over  bool // cancelled before anybody waited
}

func (p *lazyTimeout) Deadline() (time.Time, bool) {
	if d, ok := p.Context.Deadline(); ok && d.Before(p.until) {
		return d, true
	}
	return p.until, true
}

func (p *lazyTimeout) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timed == nil {
		p.timed, p.stop = context.WithDeadline(p.Context, p.until)
	}
	if p.over {
		p.stop()
	}
	return p.timed.Done()
}

func (p *lazyTimeout) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.timed != nil:
		return p.timed.Err()
	case p.Context.Err() != nil:
		return p.Context.Err()
	case p.over:
		return context.Canceled
	case !time.Now().Before(p.until):
		return context.DeadlineExceeded
	}
	return nil
}

func (p *lazyTimeout) cancel() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if p.stop != nil {
		p.stop()
	}
}
