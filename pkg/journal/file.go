package journal

import (
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// These do what package os does, without what that adds to each file: an epoll
// instance, descriptor flags, a look at the target. The journal is in the path of
// every ADD.

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
