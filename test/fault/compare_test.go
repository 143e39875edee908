package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// comparison is where the table for the README is written.
var comparison = filepath.Join(repo, "build/fault/comparison.md")

// The same cases with the reference's plugins. They are counted, not judged.
func TestComparison(t *testing.T) {
	if !full() {
		t.Skip("only with FAULTS=all (make test-faults)")
	}
	dir, err := filepath.Abs(reference)
	must(t, err)
	table := "| plugins | kills | after the first change | leaks | calls that then fail | storm | duplicates | failures | left behind |\n|---|---|---|---|---|---|---|---|---|\n"
	for _, j := range []judged{suite(t), {"reference", dir}} {
		var all score
		for _, l := range lists() {
			if l.name == "ipt" {
				continue // iptables(8) makes most changes, for both
			}
			for k, after := range []recovery{addAgain, delAll, delGone} {
				for _, verb := range []string{"ADD", "DEL"} {
					tr := &trial{T: t, judged: j, list: l, verb: verb, after: after, judge: counts, warm: true}
					all.add(tr.sweep(1+k, 5))
				}
			}
		}
		s := newStorm(t, j)
		s.judge, s.total, s.workers = counts, 1500, 16
		s.rage(1)
		table += fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %d | %d |\n", j.name, all.Kills, all.Late, all.Leaks, all.Failures,
			s.total, s.duplicates.Load(), s.failures.Load(), s.leaks.Load())
	}
	must(t, os.WriteFile(comparison, []byte(table), 0o644))
	t.Log("\n" + table)
}

// counts is the judge of plugins that are only compared.
func counts(t *testing.T, bad string) { t.Helper(); t.Log(bad) }
