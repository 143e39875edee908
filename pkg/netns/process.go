package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenFile opens a file on a thread inside n: what /dev/net/tun gives belongs to
// the namespace that it was opened in, wherever it is used.
func (n *NS) OpenFile(path string, flags int) (fd int, err error) {
	err = n.Do(func() (err error) {
		if fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0); err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		return nil
	})
	return fd, err
}

// RunLabelled runs cmd in n, in the SELinux domain that label names. A thread of
// a process of several cannot change its domain; a new process begins in the one
// that its parent's thread has asked for.
func (n *NS) RunLabelled(cmd *exec.Cmd, label string) error {
	return n.Do(func() error {
		if err := setExecLabel(label); err != nil {
			return err
		}
		err := requireExecLabel(label)
		if err == nil {
			err = cmd.Start() // on this thread
		}
		started := err == nil
		err = errors.Join(err, setExecLabel("\n"))
		if started {
			err = errors.Join(err, cmd.Wait())
		}
		return err
	})
}

// execLabel is the label of the processes that the thread starts.
const execLabel = "/proc/thread-self/attr/exec"

// setExecLabel asks for a label; a newline asks for the default.
func setExecLabel(label string) error {
	fd, err := unix.Open(execLabel, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: execLabel, Err: err}
	}
	_, err = unix.Write(fd, []byte(label))
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("label %q of a new process: %w", label, err)
	}
	return nil
}

// requireExecLabel refuses a kernel that did not take the label for what it
// says: without SELinux, or before it has a policy. Only the level, past the
// third colon, may be written in another way than was asked.
func requireExecLabel(label string) error {
	b, err := os.ReadFile(execLabel)
	got := string(bytes.TrimRight(b, "\x00\n"))
	if err == nil && domain(got) == domain(label) {
		return nil
	}
	return fmt.Errorf("label %q of a new process: the kernel has %q, without SELinux or its policy: %w", label, got, errors.Join(errors.ErrUnsupported, err))
}

// domain is a label's user, role and type.
func domain(label string) string {
	fields := strings.SplitN(label, ":", 4)
	return strings.Join(fields[:min(3, len(fields))], ":")
}
