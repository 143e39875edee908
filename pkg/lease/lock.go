package lease

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
)

const (
	lockName = "lock"
	// lockMode is the reference's.
	lockMode = 0o750
	dirMode  = 0o755
)

// BusyError says that another process did not let go of the lock in time.
type BusyError struct {
	Dir    string
	Holder string // what is known of it: "pid 123 (name)"
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("lock %s: still held by %s", filepath.Join(e.Dir, lockName), e.Holder)
}

// enter opens the lease directory and locks it, waiting until ctx ends. The lock
// is the reference's, so that both suites can work on a directory. Where
// somebody removes directory or lock file meanwhile, it starts over.
func (s *Store) enter(ctx context.Context) error {
	for {
		if err := s.openDir(); err != nil {
			return err
		}
		err := s.lock(ctx)
		if err == nil && s.isCurrent() {
			return nil
		}
		removed := s.isRemoved(err)
		if cerr := s.leave(); err != nil && !removed || cerr != nil {
			return errors.Join(err, cerr)
		}
	}
}

func (s *Store) openDir() (err error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	s.dirfd, err = unix.Open(s.Dir, flags, 0)
	if s.creates && errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.Dir, dirMode); err != nil {
			return fmt.Errorf("lease directory: %w", err)
		}
		s.dirfd, err = unix.Open(s.Dir, flags, 0)
	}
	if err != nil {
		return fmt.Errorf("lease directory: %w", &fs.PathError{Op: "open", Path: s.Dir, Err: err})
	}
	return nil
}

// lock takes the lock. Where there is no lock file, a reader makes none: nobody
// has ever written there.
func (s *Store) lock(ctx context.Context) (err error) {
	s.lockfd = -1
	flags := unix.O_RDONLY | unix.O_CLOEXEC
	if !s.reader {
		flags |= unix.O_CREAT
	}
	fd, err := unix.Openat(s.dirfd, lockName, flags, lockMode)
	if s.reader && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: filepath.Join(s.Dir, lockName), Err: err}
	}
	s.lockfd = fd
	err = journal.Flock(ctx, fd)
	if errors.Is(err, journal.ErrBusy) {
		return &BusyError{s.Dir, holder(fd)}
	}
	if err != nil {
		return &fs.PathError{Op: "flock", Path: filepath.Join(s.Dir, lockName), Err: err}
	}
	return nil
}

// isCurrent reports whether what was locked is still what the path names. A lock
// file that was removed keeps nobody out.
func (s *Store) isCurrent() bool {
	var st unix.Stat_t
	if s.lockfd < 0 {
		return true
	}
	return unix.Fstat(s.lockfd, &st) == nil && st.Nlink > 0
}

// isRemoved reports whether err is of a directory that was removed since it was
// opened.
func (s *Store) isRemoved(err error) bool {
	var st unix.Stat_t
	return errors.Is(err, fs.ErrNotExist) && unix.Fstat(s.dirfd, &st) == nil && st.Nlink == 0
}

// leave closes directory and lock, which lets the next in.
func (s *Store) leave() error {
	var errs []error
	for _, fd := range []*int{&s.lockfd, &s.dirfd} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
		}
		*fd = -1
	}
	return errors.Join(errs...)
}

// holder names the process that has the lock fd, as /proc/locks tells.
func holder(fd int) string {
	var st unix.Stat_t
	f, err := os.Open("/proc/locks")
	if err != nil || unix.Fstat(fd, &st) != nil {
		return "another process"
	}
	defer func() { _ = f.Close() }()
	dev := uint64(st.Dev) //nolint:unconvert // 32 bits on MIPS
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), st.Ino)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 1: FLOCK  ADVISORY  WRITE 708 00:13:10485 0 EOF; a waiter's has "->".
		field := strings.Fields(lines.Text())
		if len(field) >= 6 && field[1] == "FLOCK" && field[5] == file {
			return describe(field[4])
		}
	}
	return "another process"
}

func describe(pid string) string {
	name, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return "pid " + pid
	}
	return "pid " + pid + " (" + strings.TrimSpace(string(name)) + ")"
}
