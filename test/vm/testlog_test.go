package main

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

// envStory makes TestStory do something; this binary runs itself with it, so that the parser reads what package testing
// really prints.
const envStory = "VM_STORY"

func TestStory(t *testing.T) {
	switch os.Getenv(envStory) {
	case "skip":
		t.Run("sub", func(t *testing.T) { t.Skip("no ipvlan here") })
	case "fail":
		t.Log("before")
		t.Run("sub", func(t *testing.T) { t.Error("it broke") })
	case "panic":
		panic("at the disco")
	case "exit":
		os.Exit(0)
	case "partial":
		os.Stdout.WriteString("no newline")
	}
}

func TestReportOfRealBinary(t *testing.T) {
	for _, test := range []struct {
		story                   string
		skips                   []string
		passed, failed, skipped int
		ok                      bool
		prints                  string
	}{
		{story: "pass", passed: 1, ok: true, prints: "ok  \texample"},
		{story: "partial", passed: 1, ok: true, prints: "ok  \texample"},
		{story: "skip", passed: 1, failed: 1, prints: "FAIL: example: skip in the VM: TestStory/sub\n    testlog_test.go"},
		{story: "skip", skips: []string{"no ipvlan"}, passed: 1, skipped: 1, ok: true},
		{story: "fail", failed: 2, prints: "it broke"},
		{story: "panic", failed: 1, prints: "at the disco"},
		{story: "exit", failed: 1, prints: "exit status 2"}, // by -test.paniconexit0
	} {
		t.Run(test.story, func(t *testing.T) {
			var out strings.Builder
			r := &report{Out: &out, Skips: test.skips}
			tell(t, r, test.story)
			r.event(job.Event{Done: true})
			r.end(1, "")
			_, ok := r.summary("k", 0)
			got := []int{r.Passed, r.Failed, r.Skipped}
			if want := []int{test.passed, test.failed, test.skipped}; !slices.Equal(want, got) || test.ok != ok {
				t.Errorf("want passed, failed, skipped %v, ok %v; got %v, %v\n%s", want, test.ok, got, ok, &out)
			}
			if !strings.Contains(out.String(), test.prints) {
				t.Errorf("want %q in\n%s", test.prints, &out)
			}
		})
	}
}

// tell runs a story and reports it as the guest does, in pieces of one byte.
func tell(t *testing.T, r *report, story string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestStory$", "-test.v=test2json", "-test.paniconexit0")
	cmd.Env = append(os.Environ(), envStory+"="+story)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for _, b := range out {
		r.event(job.Event{Package: "example", Output: []byte{b}})
	}
	e := &job.Exit{}
	if err != nil {
		e.Status = err.Error()
	}
	r.event(job.Event{Package: "example", Exit: e})
}

func TestReportMistrusts(t *testing.T) {
	pass := func(r *report) {
		r.event(job.Event{Package: "p", Output: []byte("\x16--- PASS: TestX (0.00s)\n\x16PASS\n")})
	}
	for name, act := range map[string]func(*report) string{
		"no end": func(r *report) string {
			pass(r)
			r.event(job.Event{Package: "p", Exit: &job.Exit{}})
			return ""
		},
		"package without end": func(r *report) string {
			pass(r)
			r.event(job.Event{Done: true})
			return ""
		},
		"no package": func(r *report) string {
			r.event(job.Event{Done: true})
			return ""
		},
		"exit without PASS": func(r *report) string {
			r.event(job.Event{Package: "p", Exit: &job.Exit{}})
			r.event(job.Event{Done: true})
			return ""
		},
		"exit status after PASS": func(r *report) string {
			pass(r)
			r.event(job.Event{Package: "p", Exit: &job.Exit{Status: "exit status 3"}})
			r.event(job.Event{Done: true})
			return ""
		},
		"fault": func(r *report) string {
			pass(r)
			r.event(job.Event{Package: "p", Exit: &job.Exit{}})
			r.event(job.Event{Fault: "modprobe"})
			r.event(job.Event{Done: true})
			return ""
		},
		"kernel": func(r *report) string {
			pass(r)
			r.event(job.Event{Package: "p", Exit: &job.Exit{}})
			r.event(job.Event{Done: true})
			return "[ 1.0] netcleat: run p\n[ 1.1] WARNING: CPU: 0 PID: 9 at net/core/dev.c:1 x+0x1\n"
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			r := &report{Out: &out}
			r.end(1, act(r))
			if line, ok := r.summary("k", 0); ok {
				t.Errorf("want a failure, got %s\n%s", line, &out)
			}
		})
	}
}

func TestKernelFaultsNameThePackage(t *testing.T) {
	got := kernelFaults("mtrr: fine\nnetcleat: run a/b\nBUG: kernel NULL pointer\n")
	if want := []string{"BUG: kernel NULL pointer (a/b)"}; !slices.Equal(want, got) {
		t.Errorf("want %q, got %q", want, got)
	}
}
