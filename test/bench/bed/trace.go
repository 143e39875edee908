package bed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

// follow makes ptrace tell of every descendant, every execve and every end.
const follow = syscall.PTRACE_O_TRACEFORK | syscall.PTRACE_O_TRACEVFORK | syscall.PTRACE_O_TRACECLONE |
	syscall.PTRACE_O_TRACEEXEC | syscall.PTRACE_O_TRACEEXIT

// traced runs c under ptrace and counts successful execve calls, its own included. The largest resident set is read at
// each process' end: rusage would begin with that of the process which forked.
func traced(c command) ([]byte, Cost, error) {
	runtime.LockOSThread() // ptrace knows threads, not processes
	defer runtime.UnlockOSThread()
	f, err := c.open()
	if err != nil {
		return nil, Cost{}, err
	}
	attr := c.attr(f)
	attr.Sys = &syscall.SysProcAttr{Ptrace: true}
	p, err := os.StartProcess(c.path, []string{c.path}, attr)
	if err != nil {
		_, closeErr := f.read()
		return nil, Cost{}, errors.Join(err, closeErr)
	}
	cost, status, err := watch(p.Pid)
	out, readErr := f.read()
	if err := errors.Join(err, readErr, p.Release()); err != nil {
		return nil, cost, err
	}
	if status != 0 {
		err = fmt.Errorf("%s: exit status %d: %s", filepath.Base(c.path), status, bytes.TrimSpace(out))
	}
	return out, cost, err
}

// watch lets pid and its descendants run to their ends and returns pid's exit status.
func watch(pid int) (Cost, int, error) {
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, syscall.WALL, nil); err != nil {
		return Cost{}, 0, fmt.Errorf("wait: %w", err)
	}
	if err := syscall.PtraceSetOptions(pid, follow); err != nil {
		return Cost{}, 0, fmt.Errorf("ptrace: %w", err)
	}
	cost, status := Cost{Execs: 1}, 0
	for at := pid; ; {
		if ws.Stopped() {
			cost.count(at, ws)
			// A process that was killed meanwhile is no longer there to be continued: its end is what comes next.
			if err := syscall.PtraceCont(at, deliver(ws)); err != nil && !errors.Is(err, syscall.ESRCH) {
				return cost, 0, fmt.Errorf("ptrace: %w", err)
			}
		} else if at == pid {
			status = ws.ExitStatus()
		}
		var err error
		at, err = syscall.Wait4(-1, &ws, syscall.WALL, nil)
		if errors.Is(err, syscall.ECHILD) {
			return cost, status, nil
		}
		if err != nil {
			return cost, 0, fmt.Errorf("wait: %w", err)
		}
	}
}

// count takes note of a stop.
func (c *Cost) count(pid int, ws syscall.WaitStatus) {
	switch ws.TrapCause() {
	case syscall.PTRACE_EVENT_EXEC:
		c.Execs++
	case syscall.PTRACE_EVENT_EXIT:
		c.PeakKiB = max(c.PeakKiB, peak(pid))
	}
}

// deliver returns the signal that stopped a process, but for those that ptrace itself causes.
func deliver(ws syscall.WaitStatus) int {
	if s := ws.StopSignal(); s != syscall.SIGTRAP && s != syscall.SIGSTOP {
		return int(s)
	}
	return 0
}

// peak returns the largest resident set that pid had, in KiB, and 0 where it has none to show.
func peak(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(string(fields[0]))
	return n
}
