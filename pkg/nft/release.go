package nft

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deleted says that this process has sent a deletion, which may not be finished,
// or that it is part of a DEL.
var deleted atomic.Bool

// Deleting says that this process is part of a DEL: a moment ago another plugin
// of the list may have deleted what the kernel has yet to free, and the close of
// a socket that only asks waits for that, too.
func (*Conn) Deleting() { deleted.Store(true) }

// closeLater has the kernel close a socket by itself, some time after this
// process has closed it: the last reference is then an empty io_uring's, which
// the kernel gives up in a worker of its own. Where there is no io_uring, or a
// host forbids it, nothing happens.
//
// It is worth that because the last close of a netfilter socket waits until
// what was deleted has been freed, an RCU grace period after nobody sees it any
// more (nft_rcv_nl_event in the kernel): the deletion itself is finished when
// the transaction is. See docs/adr/0017.
func closeLater(fd int) {
	var params [120]byte // struct io_uring_params, all of it the default
	ring, _, errno := unix.RawSyscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return
	}
	const registerFiles = 2 // IORING_REGISTER_FILES
	file := int32(fd)
	_, _, _ = unix.RawSyscall6(unix.SYS_IO_URING_REGISTER, ring, registerFiles, uintptr(unsafe.Pointer(&file)), 1, 0, 0)
	_ = unix.Close(int(ring))
}
