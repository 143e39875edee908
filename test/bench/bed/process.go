package bed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Cost is what the processes of one call cost together.
type Cost struct {
	Wall, CPU time.Duration
	Execs     int // counted under ptrace only
	PeakKiB   int // largest resident set of one process, seen under ptrace only
}

// add adds one process, which ran after the others.
func (c *Cost) add(o Cost) {
	c.Wall += o.Wall
	c.CPU += o.CPU
	c.Execs += o.Execs
	c.PeakKiB = max(c.PeakKiB, o.PeakKiB)
}

// command is a process to be.
type command struct {
	path   string
	env    []string
	stdin  []byte
	errors bool // standard error goes where standard output goes
}

// execute runs a command and returns what it printed.
type execute func(command) ([]byte, Cost, error)

// pipeSize is what fits into a pipe before anyone reads it: input is written before the start and output read after the
// end, so that neither is timed.
const pipeSize = 60_000

// files are a command's standard input and output.
type files struct{ in, out, result *os.File }

// open makes the files and writes the input.
func (c command) open() (*files, error) {
	if len(c.stdin) > pipeSize {
		return nil, fmt.Errorf("input of %d bytes: does not fit into a pipe", len(c.stdin))
	}
	in, feed, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	result, out, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), feed.Close())
	}
	_, err = feed.Write(c.stdin)
	return &files{in, out, result}, errors.Join(err, feed.Close())
}

// read closes the files and returns the output.
func (f *files) read() ([]byte, error) {
	err := errors.Join(f.in.Close(), f.out.Close())
	out, readErr := io.ReadAll(f.result)
	return out, errors.Join(err, readErr, f.result.Close())
}

// attr returns how the process is to be started.
func (c command) attr(f *files) *os.ProcAttr {
	a := &os.ProcAttr{Env: c.env, Files: []*os.File{f.in, f.out, nil}}
	if c.errors {
		a.Files[2] = f.out
	}
	return a
}

// timed runs c. The time is from before the fork, which shares memory until the exec, to the end of the process.
func timed(c command) ([]byte, Cost, error) {
	f, err := c.open()
	if err != nil {
		return nil, Cost{}, err
	}
	attr, argv := c.attr(f), []string{c.path}
	begin := time.Now()
	p, err := os.StartProcess(c.path, argv, attr)
	if err != nil {
		_, closeErr := f.read()
		return nil, Cost{}, errors.Join(err, closeErr)
	}
	state, err := p.Wait()
	cost := Cost{Wall: time.Since(begin)}
	if err != nil {
		return nil, cost, err
	}
	cost.CPU = state.UserTime() + state.SystemTime()
	out, err := f.read()
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s: %s: %s", filepath.Base(c.path), state, bytes.TrimSpace(out))
	}
	return out, cost, err
}
