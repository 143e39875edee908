// Package socket is what netcleat's daemons have in common: the unix socket at which
// plugins ask them.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// FirstPassed is the descriptor that passed sockets begin at (sd_listen_fds(3)).
const FirstPassed = 3

// Listen creates a unix socket that only the daemon's user can open. It replaces a
// socket on which no process listens: a daemon that was killed left it.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return nil, errors.Join(fmt.Errorf("socket %s: another daemon listens on it", path), conn.Close())
	case errors.Is(err, unix.ECONNREFUSED):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	mask := unix.Umask(0o177)
	defer unix.Umask(mask)
	return net.Listen("unix", path)
}

// Passed returns the listening socket at FirstPassed, which systemd or a plugin passed.
// Closing it does not unlink its path: systemd continues to listen, and another daemon
// may have created its own.
func Passed() (net.Listener, error) {
	f := os.NewFile(FirstPassed, "passed")
	l, err := net.FileListener(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket passed: %w", err), f.Close())
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return l, f.Close()
}

// Accept calls handle with each connection until the listener is closed or ctx ends.
// handle must not block. After an error, mostly for lack of descriptors or memory, it
// tries again.
func Accept(ctx context.Context, l net.Listener, logger *log.Logger, handle func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			logger.Printf("accept: %v", err)
			if Pause(ctx, 100*time.Millisecond) != nil {
				return
			}
			continue
		}
		handle(conn)
	}
}

// Authorised returns an error unless root or the daemon's own user has connected.
func Authorised(conn net.Conn) error {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("not a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, cerr); err != nil {
		return err
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("process %d of user %d may not use the daemon", cred.Pid, cred.Uid)
	}
	return nil
}

// Pause waits, and returns the cause if ctx ends first.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// IgnoreClosed returns nil for the error of closing what is already closed.
func IgnoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
