package netns

import (
	"encoding/binary"
	"errors"
	"fmt"

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
	found, err := find(id)
	if found || err != nil {
		return found, err
	}
	// A kernel that does not find this process's own namespace proves nothing.
	own, err := Identify(Own)
	if err != nil {
		return false, err
	}
	if seen, err := find(own); err != nil || !seen || own.Cookie == 0 {
		return false, errors.Join(ErrUnsupported, err)
	}
	return false, nil
}

// find opens the namespace by its handle: identity, type and inode number.
func find(id ID) (bool, error) {
	handle := binary.NativeEndian.AppendUint64(nil, id.Cookie)
	handle = binary.NativeEndian.AppendUint32(handle, unix.CLONE_NEWNET)
	handle = binary.NativeEndian.AppendUint32(handle, uint32(id.Ino))
	fd, err := unix.OpenByHandleAt(nsfs, unix.NewFileHandle(handleType, handle), unix.O_RDONLY|unix.O_CLOEXEC)
	switch {
	case err == nil:
		return true, unix.Close(fd)
	case errors.Is(err, unix.ESTALE):
		return false, nil
	}
	return false, fmt.Errorf("%w: %w", ErrUnsupported, err)
}
