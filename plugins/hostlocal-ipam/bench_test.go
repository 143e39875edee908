package hostlocal_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// BenchmarkProcess runs whole processes of the built binary and of the reference
// in turn, on directories of the same content, and reports the median of each
// verb. Run it with -benchtime 20x or more.
func BenchmarkProcess(b *testing.B) {
	ours := buildCNI(b)
	ref := referenceBinary(b)
	privateRun(b)
	for _, n := range []int{0, 1000, 10000, 60000, 65532} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			hosts := map[string]*host{}
			for name, path := range map[string]string{"ours": ours, "reference": ref} {
				h := newHost(b, `"subnet":"10.1.0.0/16"`)
				h.ref = path
				h.fill("10.1.%d.%d", n, 2)
				h.reference(plugin.Add, "warm")
				h.reference(plugin.Del, "warm")
				hosts[name] = h
			}
			took := map[string][]time.Duration{}
			for b.Loop() {
				for name, h := range hosts {
					for _, verb := range []string{plugin.Add, plugin.Del, "unknown"} {
						took[name+"-"+verb] = append(took[name+"-"+verb], h.timed(verb))
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			for what, all := range took {
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, what+"-ms")
			}
		})
	}
}

// timed runs one process. "unknown" is DEL of a container that never was.
func (h *host) timed(verb string) time.Duration {
	id := "bench"
	if verb == "unknown" {
		verb, id = plugin.Del, "nobody"
	}
	cmd := h.command(verb, id)
	cmd.Path, cmd.Args = h.ref, []string{h.ref}
	start := time.Now()
	a := h.run(cmd)
	took := time.Since(start)
	if a.code != 0 {
		h.t.Fatalf("%s: %+v", verb, a)
	}
	return took
}

func buildCNI(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "host-local")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "../../cmd/cni")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return path
}

// privateRun gives the benchmark's thread, and what it starts, a /run of its own.
func privateRun(b *testing.B) {
	b.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the benchmark
	must(b, unix.Unshare(unix.CLONE_NEWNS))
	must(b, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(b, unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
}

// BenchmarkCall is ADD in this process, without its start: what the bridge pays.
func BenchmarkCall(b *testing.B) {
	for _, n := range []int{0, 60000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newHost(b, `"subnet":"10.1.0.0/16"`)
			shm := b.TempDir()
			must(b, unix.Mount("tmpfs", shm, "tmpfs", 0, ""))
			b.Cleanup(func() { must(b, unix.Unmount(shm, unix.MNT_DETACH)) })
			h.fill("10.1.%d.%d", n, 2)
			var took []time.Duration
			for b.Loop() {
				d := h.inProcess(b, plugin.Add, shm)
				h.inProcess(b, plugin.Del, shm)
				took = append(took, d)
			}
			slices.Sort(took)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "ADD-µs")
		})
	}
}
