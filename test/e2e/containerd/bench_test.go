package containerd

import (
	"fmt"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// BenchmarkRunPodSandbox is a pod with a port and two addresses, as the CRI makes it
// for a kubelet: ours and the reference's in turns, each on a host of its own.
func BenchmarkRunPodSandbox(b *testing.B) {
	ours, reference := newNode(b), newNode(b)
	reference.InstallReference()
	ours.once()
	reference.once()
	bed.Compare(b, ours.once, reference.once)
}

// once runs a pod and removes it, and returns how long running it took.
func (n node) once() bed.Took {
	n.t.Helper()
	before := n.PluginTime()
	c := n.PodConfig(fmt.Sprint("pod", before.Nanoseconds()))
	bed.Publish(c, 8080)
	begin := time.Now()
	r, err := n.Pods.RunPodSandbox(n.t.Context(), &cri.RunPodSandboxRequest{Config: c})
	took := time.Since(begin)
	if err != nil {
		n.t.Fatal(err)
	}
	after := n.PluginTime()
	n.RemovePods(bed.Sandbox{ID: r.PodSandboxId})
	return bed.Took{Whole: took, Plugins: float64(after-before) / float64(took)}
}
