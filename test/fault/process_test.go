package fault

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/test/fault/stepper"
)

// process runs a plugin undisturbed, or kills it after a time.
type process struct {
	after  time.Duration // 0: it is let alone
	killed bool
}

func (p *process) run(c stepper.Command) (o stepper.Outcome, err error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(c.Path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Env, bytes.NewReader(c.Stdin), &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return o, err
	}
	kill := func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	if p.after > 0 {
		defer time.AfterFunc(p.after, kill).Stop()
	}
	var hung atomic.Bool
	defer time.AfterFunc(stepper.Limit, func() { hung.Store(true); kill() }).Stop()
	err = cmd.Wait()
	if hung.Load() {
		return o, fmt.Errorf("%s: did not end within %v", filepath.Base(c.Path), stepper.Limit)
	}
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		err = nil
	}
	o.Exit, o.Stdout, o.Stderr = cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
	p.killed = p.killed || o.Exit < 0
	return o, err
}
