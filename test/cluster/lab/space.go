package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// space is namespaces, which a process holds that waits for its standard input to end.
type space struct {
	holder *exec.Cmd
	stdin  io.Closer
	enter  []string // of nsenter
}

// hold makes namespaces and runs a script in them, which says that it is ready.
func hold(script string, kinds uintptr, args ...string) (*space, error) {
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: kinds}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	s := &space{holder: cmd, stdin: stdin, enter: []string{"-t", strconv.Itoa(cmd.Process.Pid)}}
	for kind, flag := range map[uintptr]string{
		unix.CLONE_NEWNET: "-n", unix.CLONE_NEWNS: "-m", unix.CLONE_NEWPID: "-p", unix.CLONE_NEWIPC: "-i", unix.CLONE_NEWUTS: "-u",
	} {
		if kinds&kind != 0 {
			s.enter = append(s.enter, flag)
		}
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		return nil, errors.Join(fmt.Errorf("namespaces: %w", err), s.end())
	}
	return s, nil
}

func (s *space) pid() int { return s.holder.Process.Pid }

// command is a program in the namespaces, not yet started.
func (s *space) command(ctx context.Context, argv ...string) *exec.Cmd {
	return command(ctx, append(append(append([]string{"nsenter"}, s.enter...), "--"), argv...)...)
}

// end ends the namespaces, with all processes where they have a namespace, too.
func (s *space) end() error {
	err := s.stdin.Close()
	if kerr := s.holder.Process.Kill(); kerr != nil && !errors.Is(kerr, os.ErrProcessDone) {
		err = errors.Join(err, kerr)
	}
	_ = s.holder.Wait() // it was killed
	return err
}

// command is a program of this machine, not yet started.
func command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.WaitDelay = time.Second // a child that went on has the pipes
	return cmd
}

// combined runs a program. The error has what it prints.
func combined(cmd *exec.Cmd) error {
	_, err := output(cmd)
	return err
}

// output runs a program and returns what it prints.
func output(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, &out)
	}
	return out.String(), nil
}
