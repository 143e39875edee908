package bed

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// makeSandbox makes a network namespace and binds it to path.
func (b *Bed) makeSandbox(path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	runtime.LockOSThread() // unlocked only once the thread is back in the host's namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("sandbox %s: %w", path, err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("sandbox %s: %w", path, err)
	}
	if err := unix.Setns(int(b.host.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("host namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return nil
}

// inside runs f on a thread in the sandbox at path. The thread ends with it.
func inside(path string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- enter(path, f)
	}()
	return <-done
}

// enter moves the thread into the sandbox at path, for good, and runs f there.
func enter(path string, f func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("sandbox %s: %w", path, err)
	}
	return f()
}
