// Package netns opens network namespaces, tells them apart, and does something
// inside of one.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ID tells one network namespace from all others of this boot. The kernel may
// give the inode number of a dead namespace to a new one; the cookie is never
// given twice.
type ID struct {
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	Cookie uint64 `json:"cookie,omitempty"` // 0 before Linux 5.14
}

// Same reports whether both name the same namespace. The cookies decide where
// both are known.
func (a ID) Same(b ID) bool {
	if a.Dev != b.Dev || a.Ino != b.Ino {
		return false
	}
	return a.Cookie == 0 || b.Cookie == 0 || a.Cookie == b.Cookie
}

// NS is an open network namespace.
type NS struct {
	fd   int
	Path string
	ID   ID
}

// Own is the path of the calling thread's network namespace.
const Own = "/proc/thread-self/ns/net"

// Open opens the namespace at path. A path that does not exist, or is no longer
// a namespace (an unmounted /run/netns file), satisfies errors.Is(err,
// fs.ErrNotExist).
func Open(path string) (*NS, error) {
	// What is no namespace, but a pipe say, must not block.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ESRCH) {
		err = unix.ENOENT // /proc/<pid>/ns/net of a process that is just going
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	n := &NS{fd: fd, Path: path}
	if n.ID, err = identify(fd, path); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return n, nil
}

// identify checks that fd is a network namespace and returns its identity.
func identify(fd int, path string) (ID, error) {
	var sfs unix.Statfs_t
	if err := unix.Fstatfs(fd, &sfs); err != nil {
		return ID{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	if sfs.Type != unix.NSFS_MAGIC {
		return ID{}, &notNamespace{path, uint32(sfs.Type)}
	}
	if t, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err == nil && t != unix.CLONE_NEWNET {
		return ID{}, fmt.Errorf("%s: not a network namespace (namespace type %#x)", path, t)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return ID{Dev: uint64(st.Dev), Ino: st.Ino, Cookie: askCookie(fd)}, nil //nolint:unconvert // 32 bits on MIPS
}

// askCookie asks the namespace itself for its cookie: Linux 6.18 tells it, as the
// identity that all kinds of namespaces have since then; older ones do not (0).
func askCookie(fd int) (id uint64) {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.NS_GET_ID, uintptr(unsafe.Pointer(&id))); errno != 0 {
		return 0
	}
	return id
}

// notNamespace is a path with a plain file where a namespace was mounted: the
// mount is gone, or in another mount namespace.
type notNamespace struct {
	path  string
	magic uint32
}

func (e *notNamespace) Error() string {
	return fmt.Sprintf("unknown FS magic on %q: %x (the namespace's mount is gone, or in another mount namespace)", e.path, e.magic)
}

func (e *notNamespace) Is(target error) bool { return target == fs.ErrNotExist }

// Cookie looks up the cookie, which n.ID then has: 0 where the kernel has none.
func (n *NS) Cookie() error {
	if n.ID.Cookie != 0 {
		return nil
	}
	fd, err := n.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	n.ID.Cookie = CookieOf(fd)
	return os.NewSyscallError("close", unix.Close(fd))
}

// Identify returns the identity of the namespace at path without keeping it
// open. Before Linux 6.18 it lacks the cookie, which costs several times as much
// there (Cookie).
func Identify(path string) (ID, error) {
	n, err := Open(path)
	if err != nil {
		return ID{}, err
	}
	return n.ID, n.Close()
}

// Is reports whether path names the namespace with that identity. The cookie decides
// where it can be had: the kernel gives the inode number of a dead namespace to the
// next one. Without it the namespace passes for the same, since nothing may be taken
// from an attachment that lives.
func Is(path string, id ID) bool {
	n, err := Open(path)
	if err != nil {
		return false
	}
	same := n.ID.Same(id) && (n.Cookie() != nil || n.ID.Same(id))
	_ = n.Close()
	return same
}

// Same reports whether two paths name the same file, and so, where both are
// namespaces, the same namespace. It opens neither.
func Same(a, b string) (bool, error) {
	var sa, sb unix.Stat_t
	if err := unix.Stat(a, &sa); err != nil {
		return false, &fs.PathError{Op: "stat", Path: a, Err: err}
	}
	if err := unix.Stat(b, &sb); err != nil {
		return false, &fs.PathError{Op: "stat", Path: b, Err: err}
	}
	return sa.Dev == sb.Dev && sa.Ino == sb.Ino, nil
}

// Fd returns the descriptor, to create links in the namespace. It stays n's.
func (n *NS) Fd() int { return n.fd }

// Close releases the namespace.
func (n *NS) Close() error { return unix.Close(n.fd) }

// Do runs fn on a thread inside n and brings the thread back. Only packages nl
// and netns (to open a socket or a file, or to run a process) and sysctl (to reach
// /proc/sys/net) may call it: code that runs in fn must not start goroutines, which
// would run outside.
func (n *NS) Do(fn func() error) (err error) {
	runtime.LockOSThread()
	back, err := unix.Open(Own, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return os.NewSyscallError("open "+Own, err)
	}
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return errors.Join(fmt.Errorf("enter %s: %w", n.Path, err), unix.Close(back))
	}
	defer func() {
		if berr := unix.Setns(back, unix.CLONE_NEWNET); berr != nil {
			// The thread stays locked: it dies with its goroutine and harms nobody.
			err = errors.Join(err, fmt.Errorf("leave %s: %w", n.Path, berr))
		} else {
			runtime.UnlockOSThread()
		}
		err = errors.Join(err, unix.Close(back))
	}()
	return fn()
}

// Socket opens a socket in n. It stays n's wherever it is used from; it is closed
// on exec, and it keeps the namespace alive until it is closed.
func (n *NS) Socket(domain, typ, protocol int) (fd int, err error) {
	err = n.Do(func() (err error) {
		fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
		return os.NewSyscallError("socket", err)
	})
	return fd, err
}

// CookieOf returns the cookie of the namespace that the socket fd belongs to,
// or 0 where the kernel has none (before 5.14).
func CookieOf(fd int) uint64 {
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0
	}
	return c
}
