// Package file reads files and directories as package os does, without the
// runtime's poller, whose start takes as long as a dozen system calls: a plugin
// that waits for nothing else never needs it.
package file

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Read returns all that is in the file. Its errors are those of os.ReadFile. It does
// not wait for what a pipe may say, and follows no link to what may have no end.
func Read(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, errors.Join(&fs.PathError{Op: "read", Path: path, Err: err}, unix.Close(fd))
		case n == 0:
			return all, unix.Close(fd)
		}
		all = append(all, buf[:n]...)
	}
}

// Replace has the file say b, all of it or nothing: it is written to fresh, in the same
// directory, which then takes its name. It does not wait for the disk.
func Replace(path, fresh string, b []byte) error {
	err := os.WriteFile(fresh, b, 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err == nil {
		return nil
	}
	if rerr := os.Remove(fresh); !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// Names calls each with the names in the directory, in no order, until it says
// that this is enough.
func Names(dir string, each func(name string) (enough bool)) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	buf := make([]byte, 8192)
	for {
		n, err := unix.ReadDirent(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return errors.Join(&fs.PathError{Op: "readdir", Path: dir, Err: err}, unix.Close(fd))
		case n == 0:
			return unix.Close(fd)
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			if each(name) {
				return unix.Close(fd)
			}
		}
	}
}
