package nl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Brief is what can be asked of a link at a tenth of an RTM_GETLINK's cost.
type Brief struct {
	Index  int
	Flags  uint16 // IFF_UP, IFF_PROMISC …
	MTU    int
	MAC    net.HardwareAddr
	Driver string // "bridge", "veth" …; "" where the driver does not say
}

// BriefByName looks up a link of the calling thread's namespace. One that does
// not exist satisfies NotFound.
func BriefByName(name string) (b Brief, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Brief{}, fmt.Errorf("link %q: socket: %w", name, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()

	req := ifreq{}
	if len(name) >= len(req.name) {
		return Brief{}, &Error{What: fmt.Sprintf("link %q", name), Errno: unix.ENODEV}
	}
	copy(req.name[:], name)
	if errno := req.ioctl(fd, unix.SIOCGIFINDEX); errno != 0 {
		return Brief{}, &Error{What: fmt.Sprintf("link %q", name), Errno: errno}
	}
	b.Index = int(binary.NativeEndian.Uint32(req.data[:]))
	if errno := req.ioctl(fd, unix.SIOCGIFFLAGS); errno != 0 {
		return Brief{}, &Error{What: fmt.Sprintf("flags of link %q", name), Errno: errno}
	}
	b.Flags = binary.NativeEndian.Uint16(req.data[:])
	if errno := req.ioctl(fd, unix.SIOCGIFMTU); errno != 0 {
		return Brief{}, &Error{What: fmt.Sprintf("mtu of link %q", name), Errno: errno}
	}
	b.MTU = int(binary.NativeEndian.Uint32(req.data[:]))
	if b.MAC, err = req.mac(fd); err != nil {
		return Brief{}, err
	}
	if info, err := unix.IoctlGetEthtoolDrvinfo(fd, name); err == nil {
		b.Driver = cstring(info.Driver[:])
	}
	return b, nil
}

// MACByName returns the hardware address of a link of the calling thread's
// namespace.
func MACByName(name string) (mac net.HardwareAddr, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("link %q: socket: %w", name, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	req := ifreq{}
	copy(req.name[:len(req.name)-1], name)
	return req.mac(fd)
}

// ifreq is the kernel's struct of that name.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data [24]byte
}

func (r *ifreq) mac(fd int) (net.HardwareAddr, error) {
	if errno := r.ioctl(fd, unix.SIOCGIFHWADDR); errno != 0 {
		return nil, &Error{What: fmt.Sprintf("hardware address of link %q", cstring(r.name[:])), Errno: errno}
	}
	return slices.Clone(net.HardwareAddr(r.data[2:8])), nil // past sa_family
}

// ioctl asks the kernel; 0 is success.
func (r *ifreq) ioctl(fd int, cmd uintptr) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), cmd, uintptr(unsafe.Pointer(r)))
	return errno
}
