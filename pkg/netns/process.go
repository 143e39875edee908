package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

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
		err := cmd.Start() // on this thread
		if lerr := setExecLabel("\n"); lerr != nil {
			err = errors.Join(err, lerr)
		}
		if cmd.Process == nil {
			return err
		}
		return errors.Join(err, cmd.Wait())
	})
}

// setExecLabel asks for the label of the processes that the thread starts; a
// newline asks for the default.
func setExecLabel(label string) error {
	const path = "/proc/thread-self/attr/exec"
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	_, err = unix.Write(fd, []byte(label))
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("label %q of a new process: %w", label, err)
	}
	return nil
}
