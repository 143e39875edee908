package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const events = `
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"run","Package":"p","Test":"TestB/one"}
{"Action":"pass","Package":"p","Test":"TestB/one"}
{"Action":"run","Package":"p","Test":"TestB/two"}
{"Action":"output","Package":"p","Test":"TestB/two","Output":"    b_test.go:7: two is wrong\n"}
{"Action":"fail","Package":"p","Test":"TestB/two"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"run","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Test":"TestC","Output":"=== RUN   TestC\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:3: needs root\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"--- SKIP: TestC (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"fail","Package":"p","Elapsed":1.25}
{"ImportPath":"q","Action":"build-output","Output":"q/q.go:1:1: undefined: x\n"}
{"ImportPath":"q","Action":"build-fail"}
{"Action":"fail","Package":"q","FailedBuild":"q"}
{"Action":"run","Package":"r","Test":"TestD"}
{"Action":"output","Package":"r","Test":"TestD","Output":"panic: boom\n"}
{"Action":"fail","Package":"r","Elapsed":0.5}
{"Action":"skip","Package":"s"}
`

const told = `    b_test.go:7: two is wrong
skip p TestC: c_test.go:3: needs root
FAIL p 1.2s
q/q.go:1:1: undefined: x
FAIL q 0.0s
FAIL r 0.5s
not ended: TestD
panic: boom
failed: p TestB/two
failed: q
failed: r
`

func TestGoTestIsCounted(t *testing.T) {
	var out bytes.Buffer
	got, err := goTest(strings.NewReader(strings.TrimPrefix(events, "\n")), &out)
	if err != nil {
		t.Fatal(err)
	}
	if want := (count{passed: 2, failed: 3, skipped: 1}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if diff := cmp.Diff(told, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestTotalsAreCounted(t *testing.T) {
	var out bytes.Buffer
	got, err := totals(strings.NewReader("vm: boot a\na: 3 passed, 0 failed, 1 skipped, 0 faults\nb: 2 passed, 1 failed, 0 skipped\n"), &out)
	if want := (count{5, 1, 1}); got != want || err != nil {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := totals(strings.NewReader("nothing\n"), &out); err == nil {
		t.Error("nothing ran, and it is a success")
	}
}

func TestStepsThatFail(t *testing.T) {
	for _, c := range []struct {
		step step
		want count
	}{
		{step{"good", []string{"true"}, whole}, count{passed: 1}},
		{step{"bad", []string{"false"}, whole}, count{failed: 1}},
		{step{"missing", []string{"/no/such/program"}, whole}, count{failed: 1}},
		{step{"bad after good tests", []string{"sh", "-c", "echo 3 passed, 0 failed, 0 skipped; exit 1"}, totals}, count{3, 1, 0}},
		{step{"bad tests", []string{"sh", "-c", "echo 3 passed, 2 failed, 0 skipped; exit 1"}, totals}, count{3, 2, 0}},
	} {
		var out bytes.Buffer
		if got := c.step.run(t.Context(), &out); got != c.want {
			t.Errorf("%s: got %v, want %v\n%s", c.step.name, got, c.want, &out)
		}
	}
}
