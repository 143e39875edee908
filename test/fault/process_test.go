package fault

import (
	"bytes"
	"errors"
	"os/exec"
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
	if p.after > 0 {
		timer := time.AfterFunc(p.after, func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })
		defer timer.Stop()
	}
	err = cmd.Wait()
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		err = nil
	}
	o.Exit, o.Stdout, o.Stderr = cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
	p.killed = p.killed || o.Exit < 0
	return o, err
}
