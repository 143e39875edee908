package fault

import (
	"path/filepath"
	"testing"
)

// The same cases with our plugins and the reference's, which are counted, not
// judged. Both are killed at the same fractions of the same calls, and are in the
// same storm. The reference waits for seconds in many calls: these are samples.
func TestComparison(t *testing.T) {
	if !full() {
		t.Skip("only in the whole campaign (make test-faults)")
	}
	dir, err := filepath.Abs(reference)
	must(t, err)
	for _, j := range []judged{suite(t), {"reference", dir}} {
		t.Run(j.name, func(t *testing.T) {
			t.Run("killed", func(t *testing.T) { compareKills(t, j) })
			t.Run("storm", func(t *testing.T) { compareStorm(t, j) })
		})
	}
}

func compareKills(t *testing.T, j judged) {
	t.Helper()
	var all score
	for _, l := range lists() {
		for _, verb := range verbs {
			for k, after := range compared {
				tr := &trial{T: t, judged: j, list: l, verb: verb, after: after, judge: counts, warm: true}
				all.add(tr.sample(max(6/share(), 1), (float64(k)+.5)/float64(len(compared))))
			}
		}
		t.Logf("with %s: %v", l.name, all)
	}
	all.row(j, "side by side: killed at the same parts of ADD and DEL, in all four lists"+cases()).write(t, "4-killed-"+j.name)
}

// compared are the recoveries that both know: few of the reference's plugins
// collect.
var compared = []recovery{addAgain, delAll, delGone}

func compareStorm(t *testing.T, j judged) {
	t.Helper()
	s := newStorm(t, j)
	s.judge, s.total, s.workers, s.warm = counts, max(600/int64(share()), 200), 16, true
	s.rage(1)
	t.Log(&s.tally)
	s.row("side by side: the same storm, 16 workers").write(t, "5-storm-"+j.name)
}

// counts is the judge of plugins that are only compared.
func counts(t *testing.T, bad string) { t.Helper(); t.Log(bad) }
