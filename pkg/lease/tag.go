package lease

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/boot"
)

// Boot names one boot of one machine. Where part of it is 0, unknown, leases say
// nothing of their boot and none is reclaimed. Without an ID no index is kept
// either: what a crash left of it might be believed.
type Boot struct {
	ID      uint64 // of the boot
	Machine uint64
}

// ThisBoot returns the name of the running boot, as far as the system tells.
func ThisBoot() Boot { return Boot{ID: boot.ID(), Machine: boot.Machine()} }

func (b Boot) known() bool { return b.ID != 0 && b.Machine != 0 }

// tagName is the extended attribute of a lease file that says in which boot the
// lease was taken:
//
//	1 byte   format
//	8 bytes  machine
//	8 bytes  boot
//	8 bytes  the file itself: its inode number and time of birth
//
// The last part makes that a copy says nothing, even one that copies attributes:
// what was restored or moved here is not this machine's to judge.
const (
	tagName   = "user.netcleat"
	tagFormat = 1
	tagSize   = 25
)

// tag writes b into the lease file fd. A file system that cannot keep it leaves a
// lease that says nothing.
func (b Boot) tag(fd int) {
	if !b.known() {
		return
	}
	self, ok := identity(fd)
	if !ok {
		return
	}
	_ = unix.Fsetxattr(fd, tagName, b.encode(self), 0)
}

func (b Boot) encode(self uint64) []byte {
	v := make([]byte, tagSize)
	v[0] = tagFormat
	binary.LittleEndian.PutUint64(v[1:], b.Machine)
	binary.LittleEndian.PutUint64(v[9:], b.ID)
	binary.LittleEndian.PutUint64(v[17:], self)
	return v
}

// isOld reports whether the lease file fd says that it was made in an earlier
// boot of b's machine.
func (b Boot) isOld(fd int) bool {
	if !b.known() {
		return false
	}
	var v [tagSize + 1]byte
	n, err := unix.Fgetxattr(fd, tagName, v[:])
	if err != nil || n != tagSize || v[0] != tagFormat ||
		binary.LittleEndian.Uint64(v[1:]) != b.Machine || binary.LittleEndian.Uint64(v[9:]) == b.ID {
		return false
	}
	self, ok := identity(fd)
	return ok && binary.LittleEndian.Uint64(v[17:]) == self
}

// identity tells a file from every copy of it. ok is false where the file system
// does not keep the time of birth: inode numbers alone are given again.
func identity(fd int) (_ uint64, ok bool) {
	var st unix.Statx_t
	const want = unix.STATX_INO | unix.STATX_BTIME
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, want, &st); err != nil || st.Mask&want != want {
		return 0, false
	}
	return mix(mix(mix(st.Ino)^uint64(st.Btime.Sec)) ^ uint64(st.Btime.Nsec)), true
}

// isLocal reports whether fd's file system belongs to this machine alone, so
// that its times and attributes are what this kernel made them. Of others, such
// as NFS, an index proves nothing and a boot says nothing.
func isLocal(fd int) bool {
	const (
		zfs      = 0x2fc12fc1
		bcachefs = 0xca451a4e
	)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC,
		unix.OVERLAYFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.RAMFS_MAGIC, zfs, bcachefs:
		return true
	}
	return false
}
