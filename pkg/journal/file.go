package journal

import (
	"errors"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// These do what package os does, without what that adds to each file: an epoll
// instance, descriptor flags, a look at the target. The journal is in the path of
// every ADD.

func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
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

func pwriteAll(fd int, b []byte) error {
	for at := 0; at < len(b); {
		n, err := unix.Pwrite(fd, b[at:], int64(at))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		at += n
	}
	return nil
}

// remove deletes a file; one that is gone is success.
func remove(path string) error {
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "unlink", Path: path, Err: err}
	}
	return nil
}
