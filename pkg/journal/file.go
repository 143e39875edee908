package journal

import (
	"errors"
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

// replaceFile gives path the content by rename: nobody sees half of it.
func replaceFile(path string, content []byte) error {
	temp := path + tempSuffix
	fd, err := unix.Open(temp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "open", Path: temp, Err: err}
	}
	err = pwriteAll(fd, content)
	if err = errors.Join(err, unix.Close(fd)); err == nil {
		err = unix.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(&fs.PathError{Op: "write", Path: path, Err: err}, remove(temp))
	}
	return nil
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
