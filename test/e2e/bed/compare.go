package bed

import (
	"slices"
	"testing"
	"time"
)

// Took is how long something took, and the plugins' share of it.
type Took struct {
	Whole   time.Duration
	Plugins float64 // 0 to 1
}

// Compare measures ours and the reference in turns, in the other order each time,
// and reports the medians.
func Compare(b *testing.B, ours, reference func() Took) {
	b.Helper()
	var us, them []Took
	for b.Loop() {
		if len(us)%2 == 0 {
			us, them = append(us, ours()), append(them, reference())
		} else {
			them, us = append(them, reference()), append(us, ours())
		}
	}
	b.ReportMetric(0, "ns/op") // of both together: says nothing
	our, their := median(us), median(them)
	b.ReportMetric(milliseconds(our.Whole), "ours-ms")
	b.ReportMetric(milliseconds(their.Whole), "reference-ms")
	b.ReportMetric(float64(their.Whole)/float64(our.Whole), "times-faster")
	b.ReportMetric(100*our.Plugins, "ours-plugins-%")
	b.ReportMetric(100*their.Plugins, "reference-plugins-%")
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// median takes both medians, each by itself.
func median(all []Took) Took {
	var whole []time.Duration
	var plugins []float64
	for _, t := range all {
		whole, plugins = append(whole, t.Whole), append(plugins, t.Plugins)
	}
	slices.Sort(whole)
	slices.Sort(plugins)
	return Took{whole[len(whole)/2], plugins[len(plugins)/2]}
}
