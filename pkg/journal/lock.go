package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// locks is where Lock keeps its files. No network is called so.
const locks = ".locks"

// Lock takes a lock that all plugins share, waiting until ctx ends (ErrBusy);
// what names it: "masquerade of <network>". The lock order of the suite is: an
// attachment's record (Open), then at most one of these, then IPAM's.
//
// Where the directory cannot be written there is nothing to share the lock with:
// what is to be removed can be removed without. unlock is then a no-op.
func (d Dir) Lock(ctx context.Context, what string) (unlock func() error, err error) {
	ctx, cancel := LazyTimeout(ctx, lockWait)
	defer cancel()
	unlock, err = d.lock(ctx, what)
	if err != nil && !errors.Is(err, ErrBusy) {
		return func() error { return nil }, nil
	}
	return unlock, err
}

// lockWait bounds how long a call waits for others.
const lockWait = time.Minute

func (d Dir) lock(ctx context.Context, what string) (unlock func() error, err error) {
	path := filepath.Join(string(d), locks, Cut(what, 2*readable))
	fd, err := lockFile(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	// Whoever waits sees that the file is gone and makes a new one.
	return func() error { return errors.Join(remove(path), unix.Close(fd)) }, nil
}

// lockFile opens or creates path and its directory and locks it, waiting until
// ctx ends.
func lockFile(ctx context.Context, path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err == unix.ENOENT { // the first of its network, or just after its last
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return -1, err
			}
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		if err := Flock(ctx, fd); err != nil {
			return -1, errors.Join(fmt.Errorf("lock %s: %w", path, err), unix.Close(fd))
		}
		if current(fd, path) {
			return fd, nil
		}
		// Its last holder removed or renamed it while this call waited.
		if err := unix.Close(fd); err != nil {
			return -1, &fs.PathError{Op: "close", Path: path, Err: err}
		}
	}
}

// current reports whether the open file is the one at path.
func current(fd int, path string) bool {
	var open, named unix.Stat_t
	return unix.Fstat(fd, &open) == nil && unix.Stat(path, &named) == nil && open.Ino == named.Ino && open.Dev == named.Dev
}

// Flock locks fd exclusively, waiting until ctx ends; it then returns ErrBusy.
// The wait is the kernel's, not a poll.
func Flock(ctx context.Context, fd int) error {
	if err := flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	if ctx.Err() != nil {
		return ErrBusy
	}
	locked := make(chan error, 1)
	go func() { locked <- flock(fd, unix.LOCK_EX) }()
	select {
	case err := <-locked:
		return err
	case <-ctx.Done():
		return ErrBusy // the process is about to end, and the waiting thread with it
	}
}

func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); err != unix.EINTR {
			return err
		}
	}
}
