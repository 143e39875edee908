package term

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	patience = time.Second            // what takes less shows no progress
	interval = 200 * time.Millisecond // between two looks at how far it is
)

// Progress tells on a terminal how far a long operation is: "17 of 1000
// attachments", in one line that goes when it is done. A nil Progress tells
// nothing.
type Progress struct {
	out   io.Writer
	what  string
	total int

	mu    sync.Mutex
	done  int
	shown bool
	end   chan struct{}
	ended sync.WaitGroup
}

// Start begins to tell of total things on out, a second from now. It returns nil
// where out is no terminal.
func Start(out io.Writer, what string, total int) *Progress {
	if out == nil || !Is(out) {
		return nil
	}
	p := &Progress{out: out, what: what, total: total, end: make(chan struct{})}
	p.ended.Go(func() { p.run(time.After(patience)) })
	return p
}

// run shows the progress from the first moment on.
func (p *Progress) run(first <-chan time.Time) {
	select {
	case <-p.end:
		return
	case <-first:
	}
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		p.show()
		select {
		case <-p.end:
			return
		case <-t.C:
		}
	}
}

func (p *Progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "\r\x1b[K%d of %d %s", p.done, p.total, p.what)
	p.shown = true
}

// Step says that one more is done.
func (p *Progress) Step() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
}

// Done ends it, and takes its line away.
func (p *Progress) Done() {
	if p == nil {
		return
	}
	close(p.end)
	p.ended.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

// clear takes the line away. The lock is held.
func (p *Progress) clear() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

// Over returns a writer to w that takes the line away first: for what else is
// printed meanwhile, in whole lines.
func (p *Progress) Over(w io.Writer) io.Writer {
	if p == nil {
		return w
	}
	return over{p, w}
}

type over struct {
	p *Progress
	w io.Writer
}

// Write implements io.Writer.
func (o over) Write(b []byte) (int, error) {
	o.p.mu.Lock()
	defer o.p.mu.Unlock()
	o.p.clear()
	return o.w.Write(b)
}
