package stepper

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// byPath are the calls that change what a path names, with the argument that
// holds the path.
var byPath = map[uint64]struct {
	name string
	arg  int
}{
	renameat: {"rename", 1}, unix.SYS_RENAMEAT2: {"rename", 1}, unix.SYS_UNLINKAT: {"unlink", 1},
	unix.SYS_MKDIRAT: {"mkdir", 1}, unix.SYS_LINKAT: {"link", 1}, unix.SYS_SYMLINKAT: {"symlink", 0}, unix.SYS_MKNODAT: {"mknod", 1},
	unix.SYS_SETXATTR: {"setxattr", 0}, unix.SYS_LSETXATTR: {"setxattr", 0}, unix.SYS_TRUNCATE: {"truncate", 0},
	unix.SYS_FCHMODAT: {"chmod", 1}, unix.SYS_FCHOWNAT: {"chown", 1}, unix.SYS_MOUNT: {"mount", 1},
}

// byFile are the calls that change an open file.
var byFile = map[uint64]string{
	unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "write", unix.SYS_WRITEV: "write", unix.SYS_PWRITEV: "write",
	unix.SYS_FTRUNCATE: "truncate", unix.SYS_FALLOCATE: "allocate", unix.SYS_FSETXATTR: "setxattr",
	unix.SYS_FCHMOD: "chmod", unix.SYS_FCHOWN: "chown",
}

// change says in words what the call changes, "" where it changes nothing.
func (c call) change() string {
	if p, ok := byPath[c.nr]; ok {
		return p.name + " " + c.path(p.arg)
	}
	if p, ok := legacy[c.nr]; ok {
		return p + " " + c.path(0)
	}
	if name, ok := byFile[c.nr]; ok {
		return c.onFile(name)
	}
	switch c.nr {
	case unix.SYS_OPENAT:
		if c.args[2]&(unix.O_CREAT|unix.O_TRUNC) != 0 {
			return "create " + c.path(1)
		}
	case unix.SYS_UTIMENSAT:
		if c.args[1] == 0 {
			return c.onFile("touch")
		}
		return "touch " + c.path(1)
	case unix.SYS_IOCTL:
		if c.args[1] == unix.TUNSETIFF || c.args[1] == unix.TUNSETPERSIST {
			return "make a tap"
		}
	case unix.SYS_SENDTO:
		return c.sent(c.memory(c.args[1], int(c.args[2])))
	case unix.SYS_SENDMSG:
		return c.sent(c.vector(c.args[1]))
	}
	return ""
}

// onFile is for a call on a descriptor, which counts only on a file.
func (c call) onFile(name string) string {
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.tid, c.args[0]))
	if err != nil || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "/dev/") {
		return ""
	}
	return name + " " + target
}

func (c call) path(arg int) string {
	text, _, _ := bytes.Cut(c.memory(c.args[arg], 512), []byte{0})
	return string(text)
}

// memory reads the task's memory, as far as it is mapped.
func (c call) memory(at uint64, size int) []byte {
	buf := make([]byte, min(size, 1<<20))
	if len(buf) == 0 {
		return nil
	}
	// A read ends at the first page that is not there: page by page.
	n := 0
	for n < len(buf) {
		step := min(len(buf)-n, int(4096-(at+uint64(n))%4096))
		got, err := unix.ProcessVMReadv(c.tid, []unix.Iovec{iovec(buf[n : n+step])}, []unix.RemoteIovec{{Base: uintptr(at) + uintptr(n), Len: step}}, 0)
		if err != nil || got == 0 {
			break
		}
		n += got
	}
	return buf[:n]
}

func iovec(b []byte) (v unix.Iovec) {
	v.Base = &b[0]
	v.SetLen(len(b))
	return v
}

// vector reads what a msghdr's parts hold together.
func (c call) vector(msghdr uint64) (all []byte) {
	header := c.memory(msghdr, 56)
	if len(header) < 56 {
		return nil
	}
	parts := c.memory(binary.NativeEndian.Uint64(header[16:]), 16*int(min(binary.NativeEndian.Uint64(header[24:]), 64)))
	for ; len(parts) >= 16; parts = parts[16:] {
		all = append(all, c.memory(binary.NativeEndian.Uint64(parts), int(binary.NativeEndian.Uint64(parts[8:])))...)
	}
	return all
}

// sent names the netlink messages that are not questions.
func (c call) sent(b []byte) string {
	proto, ok := c.netlink()
	if !ok {
		return ""
	}
	var all []string
	for len(b) >= unix.SizeofNlMsghdr {
		size, kind := int(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint16(b[4:])
		if size < unix.SizeofNlMsghdr {
			break
		}
		if name := change(proto, kind); name != "" {
			all = append(all, name)
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return strings.Join(all, "+")
}

// netlink returns the protocol of the netlink socket that the call is on.
func (c call) netlink() (proto int, ok bool) {
	pidfd, err := unix.PidfdOpen(tgid(c.tid), 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, int(c.args[0]), 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_NETLINK {
		return 0, false
	}
	proto, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return proto, err == nil
}

// tgid returns the process that the task is of.
func tgid(tid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return tid
	}
	_, rest, _ := strings.Cut(string(status), "\nTgid:")
	if _, err := fmt.Sscan(rest, &tid); err != nil {
		return tid
	}
	return tid
}

// change names a netlink message, "" where it asks only.
func change(proto int, kind uint16) string {
	switch {
	case kind < unix.NLMSG_MIN_TYPE:
		return ""
	case proto == unix.NETLINK_ROUTE:
		// The types of each object follow one another: new, del, get, set.
		if verb := (kind - unix.RTM_BASE) % 4; verb != 2 {
			return fmt.Sprintf("rtnetlink %s %d", [...]string{"new", "del", "", "set"}[verb], kind&^3)
		}
	case proto == unix.NETLINK_NETFILTER && kind>>8 == unix.NFNL_SUBSYS_NFTABLES:
		if verb, object := kind&0xff%3, kind&0xff/3; verb != 1 {
			return fmt.Sprintf("nftables %s %d", [...]string{"new", "", "del"}[verb], object)
		}
	case proto == unix.NETLINK_NETFILTER && kind>>8 == unix.NFNL_SUBSYS_CTNETLINK:
		if kind&0xff != 1 {
			return fmt.Sprintf("conntrack %d", kind&0xff)
		}
	case proto == unix.NETLINK_NETFILTER:
		if kind > 0x00ff {
			return fmt.Sprintf("netfilter %#x", kind)
		}
	default:
		return fmt.Sprintf("netlink %d:%d", proto, kind)
	}
	return ""
}
