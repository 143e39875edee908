package nerdctl

import (
	"testing"
	"time"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// BenchmarkRun is what a user waits for: `nerdctl run --detach -p 8080:80`, ours
// and the reference's in turns, each on a host of its own.
func BenchmarkRun(b *testing.B) {
	ours, reference := newNerdctl(b), newNerdctl(b)
	reference.InstallReference()
	ours.once()
	reference.once()
	bed.Compare(b, ours.once, reference.once)
}

// once runs a container and removes it, and returns how long running it took. The
// plugins' share is what that is longer than with --net none, where nerdctl calls
// none.
func (n nerdctl) once() bed.Took {
	n.t.Helper()
	published, without := n.timed("--publish=8080:80"), n.timed("--net=none")
	return bed.Took{Whole: published, Plugins: 1 - float64(without)/float64(published)}
}

// timed is how long running a container takes.
func (n nerdctl) timed(flags ...string) time.Duration {
	n.t.Helper()
	begin := time.Now()
	n.serve("web", flags...)
	took := time.Since(begin)
	n.remove("web")
	return took
}
