package kubelet

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// BenchmarkBurst is thirty static pods from their manifests to Running, each with a
// port of the host, two addresses and limits of bandwidth: ours and the reference's
// in turns, each on a node of its own.
func BenchmarkBurst(b *testing.B) {
	ours, reference := newNode(b), newNode(b)
	reference.InstallReference()
	bed.Compare(b, ours.once, reference.once)
}

// once runs the burst and removes it, and returns how long it took until all pods
// ran. The plugins' share is that of the time in which sandboxes were made.
func (n node) once() bed.Took {
	n.t.Helper()
	plugins := n.containerd.PluginTime()
	sandboxes := n.sandboxTime()
	begin := time.Now()
	names := n.burst()
	n.running(names...)
	took := time.Since(begin)
	after := n.containerd.PluginTime()
	share := float64(after-plugins) / float64(n.sandboxTime()-sandboxes)
	n.delete(names...)
	n.t.Logf("%d pods: %v, the plugins' share %.0f %%", len(names), took, 100*share)
	return bed.Took{Whole: took, Plugins: share}
}

// sandboxTime is how long kubelet has waited for sandboxes, added up.
func (n node) sandboxTime() time.Duration {
	n.t.Helper()
	for line := range strings.Lines(n.Run("curl", "-fsS", "http://127.0.0.1:10255/metrics")) {
		if value, ok := strings.CutPrefix(line, `kubelet_run_podsandbox_duration_seconds_sum{runtime_handler=""}`); ok {
			seconds, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				n.t.Fatal(err)
			}
			return time.Duration(seconds * float64(time.Second))
		}
	}
	return 0 // none yet
}
