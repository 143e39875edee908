// Package stepper runs a program from one call that changes something to the
// next, and kills it before the n-th, or has the kernel refuse that one.
//
// Changes are what another process or a later call of the program can see:
// netlink messages that are not questions, files made, written, renamed, removed,
// directories, extended attributes, sysctls. All threads and all processes that
// the program starts are followed, and are killed with it.
package stepper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Command is a program to be run.
type Command struct {
	Path  string
	Env   []string
	Stdin []byte
}

// Plan says what happens before the change numbered At, from 1 on: the kernel
// refuses it with Errno, or where that is 0 the program is killed. With an At of
// 0 nothing happens.
type Plan struct {
	At    int
	Errno unix.Errno
}

// Outcome is what became of the program.
type Outcome struct {
	Changes        []string // in words; where Hit, the last one was not made
	Hit            bool
	Exit           int // -1 where it was killed
	Stdout, Stderr string
}

// Limit is how long a program may run.
const Limit = 2 * time.Minute

// pipeSize is what fits into a pipe before anyone reads it.
const pipeSize = 60_000

// Run runs the program to its end, which it must come to within Limit.
func Run(c Command, p Plan) (o Outcome, err error) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	if len(c.Stdin) > pipeSize {
		return o, fmt.Errorf("input of %d bytes: does not fit into a pipe", len(c.Stdin))
	}
	var ends [3][2]*os.File
	for i := range ends {
		if ends[i][0], ends[i][1], err = os.Pipe(); err != nil {
			return o, err
		}
		defer ends[i][0].Close()
		defer ends[i][1].Close()
	}
	if _, err := ends[0][1].Write(c.Stdin); err != nil {
		return o, err
	}
	ends[0][1].Close()
	proc, err := os.StartProcess(c.Path, []string{filepath.Base(c.Path)}, &os.ProcAttr{
		Env: c.Env, Files: []*os.File{ends[0][0], ends[1][1], ends[2][1]}, Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
	})
	if err != nil {
		return o, err
	}
	var hung atomic.Bool
	defer time.AfterFunc(Limit, func() { hung.Store(true); _ = unix.Kill(-proc.Pid, unix.SIGKILL) }).Stop()
	s := &stepper{Plan: p, pid: proc.Pid, tasks: map[int]bool{proc.Pid: true}}
	s.Exit = -1
	if err := s.run(); err != nil {
		s.kill()
		return s.Outcome, fmt.Errorf("%s: %w", c.Path, err)
	}
	if hung.Load() {
		return s.Outcome, fmt.Errorf("%s: did not end within %v", c.Path, Limit)
	}
	ends[1][1].Close()
	ends[2][1].Close()
	stdout, err := io.ReadAll(ends[1][0])
	stderr, eerr := io.ReadAll(ends[2][0])
	s.Stdout, s.Stderr = string(stdout), string(stderr)
	return s.Outcome, errors.Join(err, eerr, proc.Release())
}

// stepper follows all tasks of a program from one system call to the next.
type stepper struct {
	Plan
	Outcome
	pid     int
	tasks   map[int]bool // that live
	refused int          // the task whose call is being refused
}

// follow makes ptrace tell of every descendant.
const follow = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_EXITKILL

// waitFor is for the tasks that this thread traces, and no other's.
const waitFor = unix.WALL | unix.WNOTHREAD

func (s *stepper) run() error {
	var ws unix.WaitStatus
	if _, err := unix.Wait4(s.pid, &ws, waitFor, nil); err != nil {
		return os.NewSyscallError("wait4", err)
	}
	if err := unix.PtraceSetOptions(s.pid, follow); err != nil {
		return os.NewSyscallError("ptrace", err)
	}
	if err := unix.PtraceSyscall(s.pid, 0); err != nil {
		return os.NewSyscallError("ptrace", err)
	}
	for {
		tid, err := unix.Wait4(-1, &ws, waitFor, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("wait4", err)
		}
		if err := s.step(tid, ws); err != nil {
			return err
		}
	}
}

// step answers one stop, or takes note of an end.
func (s *stepper) step(tid int, ws unix.WaitStatus) error {
	if !ws.Stopped() {
		delete(s.tasks, tid)
		if tid == s.pid && ws.Exited() {
			s.Exit = ws.ExitStatus()
		}
		return nil
	}
	s.tasks[tid] = true
	if ws.StopSignal() == unix.SIGTRAP|0x80 {
		if err := s.atCall(tid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	if s.killed() {
		_ = unix.Kill(tid, unix.SIGKILL) // it was born while the others were killed
	}
	if err := unix.PtraceSyscall(tid, signal(ws)); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("ptrace", err)
	}
	return nil
}

func (s *stepper) killed() bool { return s.Hit && s.Errno == 0 }

// signal returns the signal that stopped a task, but for those that ptrace
// itself causes.
func signal(ws unix.WaitStatus) int {
	if sig := ws.StopSignal(); sig != unix.SIGTRAP|0x80 && sig != unix.SIGTRAP && sig != unix.SIGSTOP {
		return int(sig)
	}
	return 0
}

// call is a system call that a task enters.
type call struct {
	tid  int
	nr   uint64
	args [6]uint64
}

// atCall looks at a system call that the task enters or leaves.
func (s *stepper) atCall(tid int) error {
	const getSyscallInfo, opEntry = 0x420e, 1
	var info [88]byte
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), uintptr(len(info)), uintptr(unsafe.Pointer(&info[0])), 0, 0)
	if errno != 0 {
		return errno
	}
	if info[0] != opEntry {
		if s.refused != tid {
			return nil
		}
		s.refused = 0
		return answer(tid, s.Errno)
	}
	if s.Hit {
		return nil
	}
	c := call{tid: tid, nr: binary.NativeEndian.Uint64(info[24:])}
	for i := range c.args {
		c.args[i] = binary.NativeEndian.Uint64(info[32+8*i:])
	}
	if what := c.change(); what != "" {
		return s.atChange(tid, what)
	}
	return nil
}

// atChange counts a change, and does at the planned one what is planned.
func (s *stepper) atChange(tid int, what string) error {
	s.Changes = append(s.Changes, what)
	if len(s.Changes) != s.At {
		return nil
	}
	s.Hit = true
	if s.Errno == 0 {
		s.kill()
		return nil
	}
	s.refused = tid
	return skip(tid)
}

// kill kills all that the program consists of.
func (s *stepper) kill() {
	for tid := range s.tasks {
		_ = unix.Kill(tid, unix.SIGKILL)
	}
}
