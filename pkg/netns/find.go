package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// ErrUnsupported says that the kernel does not find namespaces by their identity:
// before Linux 6.18, or for want of permission.
var ErrUnsupported = errors.New("the kernel does not find namespaces by their identity")

// nsfs is the root of all namespaces for open_by_handle_at (FD_NSFS_ROOT), and
// handleType the type of their handles (FILEID_NSFS). x/sys has neither.
const (
	nsfs       = -10003
	handleType = 0xf1
)

// Exists asks the kernel whether the namespace exists, whoever holds it: a process,
// a descriptor, a mount, or sockets alone. ErrUnsupported says that it does not
// tell.
func Exists(id ID) (bool, error) {
	if id.Cookie == 0 {
		return false, fmt.Errorf("no cookie of net:[%d] is known: %w", id.Ino, ErrUnsupported)
	}
	fd, err := find(id)
	if err == nil {
		return true, unix.Close(fd)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	// A kernel that does not find this process's own namespace proves nothing.
	own, err := Identify(Own)
	if err != nil {
		return false, err
	}
	if fd, err = find(own); err != nil || own.Cookie == 0 {
		return false, errors.Join(ErrUnsupported, err)
	}
	return false, unix.Close(fd)
}

// Reopen opens the namespace by its identity, whatever path leads there, and from
// wherever. Where that fails nothing is proven (Exists).
func Reopen(id ID) (*NS, error) {
	if id.Cookie == 0 {
		return nil, fmt.Errorf("no cookie of net:[%d] is known: %w", id.Ino, ErrUnsupported)
	}
	fd, err := find(id)
	if err != nil {
		return nil, err
	}
	n := &NS{fd: fd, Path: fmt.Sprintf("net:[%d]", id.Ino)}
	if n.ID, err = identify(fd, n.Path); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return n, nil
}

// find opens the namespace by its handle: identity, type and inode number. One that
// the kernel does not find satisfies errors.Is(err, fs.ErrNotExist).
func find(id ID) (int, error) {
	handle := binary.NativeEndian.AppendUint64(nil, id.Cookie)
	handle = binary.NativeEndian.AppendUint32(handle, unix.CLONE_NEWNET)
	handle = binary.NativeEndian.AppendUint32(handle, uint32(id.Ino))
	fd, err := unix.OpenByHandleAt(nsfs, unix.NewFileHandle(handleType, handle), unix.O_RDONLY|unix.O_CLOEXEC)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.ESTALE):
		return -1, fmt.Errorf("net:[%d]: %w", id.Ino, fs.ErrNotExist)
	}
	return -1, fmt.Errorf("%w: %w", ErrUnsupported, err)
}
