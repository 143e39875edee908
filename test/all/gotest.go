package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is a line of `go test -json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of what is built, in place of Package
	Test       string
	Output     string
	Elapsed    float64
}

// id names a test, or with an empty Test its package.
type id struct{ pkg, test string }

// testRun is what was heard of the tests so far.
type testRun struct {
	w      io.Writer
	log    map[id]*strings.Builder
	parent map[id]bool // has subtests, which count in its place
	failed map[id]bool // or a test below it failed
	names  []string    // of what counts as failed
	count
}

// goTest counts the tests that have no subtests. It prints a line a package, all
// that a failed test said, and why a test was skipped.
func goTest(r io.Reader, w io.Writer) (count, error) {
	run := testRun{w: w, log: map[id]*strings.Builder{}, parent: map[id]bool{}, failed: map[id]bool{}}
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				e = event{Action: "build-output", Output: string(line)}
			}
			run.take(e)
		}
		if errors.Is(err, io.EOF) {
			for _, name := range run.names {
				fmt.Fprintln(w, "failed:", name)
			}
			return run.count, run.any()
		}
		if err != nil {
			return run.count, err
		}
	}
}

func (r *testRun) take(e event) {
	t := id{e.Package, e.Test}
	switch e.Action {
	case "run":
		if up, ok := above(t); ok {
			r.parent[up] = true
		}
	case "output":
		r.say(t, e.Output)
	case "build-output":
		fmt.Fprint(r.w, e.Output)
	case "pass", "skip", "fail":
		if e.Test == "" {
			r.endPackage(t, e)
		} else {
			r.endTest(t, e.Action)
		}
		delete(r.log, t)
	}
}

// above returns the test that t is a subtest of.
func above(t id) (id, bool) {
	i := strings.LastIndexByte(t.test, '/')
	if i < 0 {
		return id{}, false
	}
	return id{t.pkg, t.test[:i]}, true
}

func (r *testRun) say(t id, output string) {
	if r.log[t] == nil {
		r.log[t] = &strings.Builder{}
	}
	r.log[t].WriteString(output)
}

func (r *testRun) said(t id) string {
	if r.log[t] == nil {
		return ""
	}
	return r.log[t].String()
}

func (r *testRun) endTest(t id, action string) {
	switch {
	case action == "fail":
		fmt.Fprint(r.w, r.said(t))
		r.fail(t)
		r.failed[id{t.pkg, ""}] = true
		if up, ok := above(t); ok {
			r.failed[up] = true
		}
	case r.parent[t]:
	case action == "skip":
		r.skipped++
		fmt.Fprintf(r.w, "skip %s %s: %s\n", t.pkg, t.test, reason(r.said(t)))
	default:
		r.passed++
	}
}

// fail counts a failure, unless it is that of something below it.
func (r *testRun) fail(t id) {
	if !r.failed[t] {
		r.count.failed++
		r.names = append(r.names, strings.TrimSpace(t.pkg+" "+t.test))
	}
}

// endPackage ends a package. One that failed without a failed test, in a panic
// or in its build, is one failure.
func (r *testRun) endPackage(t id, e event) {
	switch e.Action {
	case "fail":
		fmt.Fprintf(r.w, "FAIL %s %.1fs\n", t.pkg, e.Elapsed)
		r.fail(t)
		if left := r.leftovers(t); !r.failed[t] || left != "" {
			fmt.Fprint(r.w, r.said(t), left)
		}
	case "pass":
		fmt.Fprintf(r.w, "ok   %s %.1fs\n", t.pkg, e.Elapsed)
	}
}

// leftovers is the output of tests that did not end.
func (r *testRun) leftovers(pkg id) string {
	var out strings.Builder
	for t, log := range r.log {
		if t.pkg == pkg.pkg && t.test != "" {
			fmt.Fprintf(&out, "not ended: %s\n%s", t.test, log)
			delete(r.log, t)
		}
	}
	return out.String()
}

// any is the error of a count of nothing.
func (c count) any() error {
	if c == (count{}) {
		return errors.New("no test ran")
	}
	return nil
}

// reason takes the message out of a skipped test's output.
func reason(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return "no reason"
}
