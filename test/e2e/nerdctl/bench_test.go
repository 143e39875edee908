package nerdctl

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkRun is what a user waits for: `nerdctl run --detach -p 8080:80`, with our
// plugins and with the reference's in turns. The plugins' share is what it takes
// longer than with --net none, where nerdctl calls none.
func BenchmarkRun(b *testing.B) {
	n := newNerdctl(b)
	contenders := []struct {
		name  string
		flags []string
		took  []time.Duration
	}{
		{name: "none", flags: []string{"--net=none"}},
		{name: "ours", flags: []string{"--publish=8080:80"}},
		{name: "reference", flags: []string{"--publish=8080:80"}},
	}
	plugins := map[string]string{"none": n.Plugins, "ours": n.Plugins, "reference": n.Reference()}
	for range b.N {
		for i := range contenders {
			c := &contenders[i]
			args := append([]string{"--cni-path=" + plugins[c.name]}, n.run("web", c.flags...)...)
			start := time.Now()
			n.do(args...)
			c.took = append(c.took, time.Since(start))
			n.do("--cni-path="+plugins[c.name], "rm", "--force", "web")
		}
	}
	median := map[string]float64{}
	for _, c := range contenders {
		slices.Sort(c.took)
		median[c.name] = float64(c.took[len(c.took)/2].Microseconds()) / 1000
		b.ReportMetric(median[c.name], c.name+"-ms")
	}
	for _, name := range []string{"ours", "reference"} {
		b.ReportMetric(100*(median[name]-median["none"])/median[name], name+"-plugins-%")
	}
	b.ReportMetric(0, "ns/op") // of all three together, which says nothing
}
