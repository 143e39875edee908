package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Sweep removes the files of a network that say nothing: locks of operations
// that were killed before they began, and marks of attachments that have no
// record. Nobody holds them. drop decides on each.
func (d Dir) Sweep(network string, drop func(path string) bool) error {
	files, err := os.ReadDir(d.network(network))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, f := range files {
		path := filepath.Join(d.network(network), f.Name())
		base, marked := strings.CutSuffix(path, leavingSuffix)
		switch {
		case marked && !exists(base) && !exists(base+pendingSuffix):
			if drop(path) {
				errs = append(errs, remove(path))
			}
		case strings.HasSuffix(path, pendingSuffix):
			errs = append(errs, sweepLock(path, drop))
		}
	}
	_ = unix.Rmdir(d.network(network)) // not empty, mostly
	return errors.Join(errs...)
}

// sweepLock removes a lock file that is empty and that nobody has locked.
func sweepLock(path string, drop func(string) bool) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	free := flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil && current(fd, path)
	if free && unix.Fstat(fd, &st) == nil && st.Size == 0 && drop(path) {
		err = remove(path)
	}
	return errors.Join(err, unix.Close(fd))
}
