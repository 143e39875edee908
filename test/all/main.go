// Command all runs everything that `make test` promises, goes on where something
// fails, and ends in one line that counts it. Arguments choose among the steps.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// step is one of the things to run.
type step struct {
	name string
	argv []string
	// read takes what the step prints, passes on what a reader needs and counts.
	read func(io.Reader, io.Writer) (count, error)
}

// timeout bounds one package's tests.
const timeout = "30m"

var steps = []step{
	{"build", []string{"make", "-s", "build"}, whole},
	{"lint", []string{"make", "-s", "lint"}, whole},
	{"test", []string{"go", "test", "-json", "-count=1", "-timeout", timeout, "./..."}, goTest},
	{"user", []string{"make", "-s", "test-user"}, goTest},
	{"demo", []string{"go", "run", "./test/demo"}, whole},
	{"vm", []string{"make", "-s", "test-vm", "test-vm-nerdctl"}, totals},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all, err := runAll(ctx, os.Stdout, os.Args[1:])
	fmt.Println(all)
	if err != nil || all.failed > 0 {
		os.Exit(1)
	}
}

// runAll runs the steps that are wanted, or all. Without a build the rest would
// test an old one.
func runAll(ctx context.Context, w io.Writer, wanted []string) (count, error) {
	var all count
	for _, s := range steps {
		if len(wanted) > 0 && !slices.Contains(wanted, s.name) {
			continue
		}
		fmt.Fprintf(w, "== %s\n", s.name)
		start := time.Now()
		n := s.run(ctx, w)
		all.add(n)
		fmt.Fprintf(w, "== %s: %v, %.0f s\n", s.name, n, time.Since(start).Seconds())
		if n.failed > 0 && s.name == "build" || ctx.Err() != nil {
			return all, ctx.Err()
		}
	}
	return all, nil
}

// run runs the step and counts. A step without tests is one test; one that fails
// without a failed test is one failure.
func (s step) run(ctx context.Context, w io.Writer) count {
	cmd := exec.CommandContext(ctx, s.argv[0], s.argv[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	r, pipe := io.Pipe()
	cmd.Stdout, cmd.Stderr = pipe, w
	ended := make(chan error, 1)
	go func() {
		err := cmd.Run()
		ended <- errors.Join(err, pipe.Close())
	}()
	n, readErr := s.read(r, w)
	err := errors.Join(readErr, r.Close(), <-ended)
	switch {
	case err != nil && n.failed == 0:
		fmt.Fprintf(w, "%s: %v\n", s.name, err)
		n.failed = 1
	case err == nil && n == count{}:
		n.passed = 1
	}
	return n
}

// count is what a step came to.
type count struct{ passed, failed, skipped int }

func (c *count) add(o count) {
	c.passed += o.passed
	c.failed += o.failed
	c.skipped += o.skipped
}

func (c count) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

// whole is the reader of a step that is one test.
func whole(r io.Reader, w io.Writer) (count, error) {
	_, err := io.Copy(w, r)
	return count{}, err
}

// totals counts by the lines that say how many passed.
func totals(r io.Reader, w io.Writer) (count, error) {
	var out bytes.Buffer
	_, err := io.Copy(io.MultiWriter(w, &out), r)
	var n count
	for _, m := range totalsLine.FindAllStringSubmatch(out.String(), -1) {
		n.add(count{number(m[1]), number(m[2]), number(m[3])})
	}
	return n, errors.Join(err, n.any())
}

var totalsLine = regexp.MustCompile(`(\d+) passed, (\d+) failed, (\d+) skipped`)

// number reads digits, which cannot be wrong here.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}
