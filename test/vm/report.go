package main

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

// report prints what the guest tells and judges it. Whatever is not clearly a success is a failure.
type report struct {
	Out     io.Writer
	Verbose bool
	Skips   []string // parts of the messages of skips that are allowed
	Ready   func()   // called when the guest is up

	Passed, Failed, Skipped int
	Faults                  []string // what went wrong beside the tests

	pkg  string // the package whose tests run
	log  *testLog
	done bool
	runs int // packages that ended
	bad  int // failures of the package that runs
}

// event takes one event of the guest.
func (r *report) event(e job.Event) {
	switch {
	case e.Ready != 0:
		r.Ready()
		fmt.Fprintf(r.Out, "vm: guest ready after %.1fs\n", e.Ready.Seconds())
	case e.Output != nil:
		r.open(e.Package)
		if r.Verbose {
			fmt.Fprint(r.Out, strings.ReplaceAll(string(e.Output), string(marker), ""))
		}
		r.log.write(e.Output)
	case e.Exit != nil:
		r.open(e.Package)
		r.exit(e.Exit)
	case e.Fault != "":
		r.fault("guest: %s", e.Fault)
	case e.Done:
		r.done = true
	}
}

// open starts the log of a package that has none yet.
func (r *report) open(pkg string) {
	if r.log == nil {
		r.pkg, r.bad = pkg, 0
		r.log = newTestLog(r.verdict)
	}
}

// verdict counts one test. A skip that is not allowed is a failure: the VM has what the tests need.
func (r *report) verdict(v verdict) {
	switch {
	case v.Result == "PASS":
		r.Passed++
	case v.Result == "SKIP" && r.allowed(v.Log):
		r.Skipped++
	case v.Result == "SKIP":
		r.fail("skip in the VM: "+v.Test, v.Log)
	default:
		r.fail(v.Test, v.Log)
	}
}

func (r *report) allowed(message string) bool {
	return slices.ContainsFunc(r.Skips, func(part string) bool { return strings.Contains(message, part) })
}

// fail counts a failure and prints its log, unless that was printed already.
func (r *report) fail(what, log string) {
	r.Failed++
	r.bad++
	fmt.Fprintf(r.Out, "--- FAIL: %s: %s\n", r.pkg, what)
	if !r.Verbose {
		fmt.Fprint(r.Out, log)
	}
}

// exit ends a package.
func (r *report) exit(e *job.Exit) {
	left := r.log.close()
	if e.Status == "" && !r.log.passed {
		e.Status = "ended without PASS" // such as os.Exit(0) in TestMain
	}
	if e.Status != "" && (r.bad == 0 || !r.log.passed) {
		r.leftovers(left)
	}
	if e.Status != "" && r.bad == 0 {
		r.fail(e.Status, "")
	}
	word := "ok  "
	if r.bad > 0 {
		word = "FAIL"
	}
	fmt.Fprintf(r.Out, "%s\t%s\t%.3fs\t%s\n", word, r.pkg, e.Elapsed.Seconds(), e.Status)
	r.log = nil
	r.runs++
}

// leftovers prints what belongs to no test that ended; a panic is there.
func (r *report) leftovers(left map[string]string) {
	if r.Verbose {
		return
	}
	for _, test := range slices.Sorted(maps.Keys(left)) {
		if test != "" {
			fmt.Fprintf(r.Out, "--- not ended: %s\n", test)
		}
		fmt.Fprint(r.Out, left[test])
	}
}

func (r *report) fault(format string, args ...any) {
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}

// end judges the job as a whole, once the machine is off: that it ended, that it ran want packages, and what its kernel said.
func (r *report) end(want int, console string) {
	if r.log != nil {
		r.leftovers(r.log.close())
		r.fault("package %s: did not end", r.pkg)
	}
	if !r.done || r.runs != want {
		r.fault("guest: %d of %d packages ended", r.runs, want)
	}
	if r.Passed+r.Failed+r.Skipped == 0 {
		r.fault("no test ran")
	}
	for _, line := range kernelFaults(console) {
		r.fault("kernel: %s", line)
	}
}

// add adds what another report counted.
func (r *report) add(o *report) {
	r.Passed += o.Passed
	r.Failed += o.Failed
	r.Skipped += o.Skipped
	r.Faults = append(r.Faults, o.Faults...)
}

// summary is the last line; ok says whether everything went well.
func (r *report) summary(kernel string, elapsed time.Duration) (line string, ok bool) {
	line = fmt.Sprintf("%s: %d passed, %d failed, %d skipped, %d faults in %.1fs",
		kernel, r.Passed, r.Failed, r.Skipped, len(r.Faults), elapsed.Seconds())
	return line, r.Failed == 0 && len(r.Faults) == 0
}

// complaint matches what the kernel prints when something is wrong with it, or with what was asked of it.
var complaint = regexp.MustCompile(`Kernel panic|Oops|\bBUG: |\bWARNING: |general protection fault|unregister_netdevice: waiting|` +
	`possible circular locking|Out of memory|netcleat: init:|netcleat: (job|port|event):`)

// kernelFaults returns the kernel's complaints, each with the package that ran.
func kernelFaults(console string) []string {
	var faults []string
	var pkg string
	for line := range strings.Lines(console) {
		line = strings.TrimSpace(line)
		if _, name, ok := strings.Cut(line, "netcleat: run "); ok {
			pkg = " (" + name + ")"
		}
		if complaint.MatchString(line) {
			faults = append(faults, line+pkg)
		}
	}
	return faults
}
