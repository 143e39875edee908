package tap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
)

// device is a tap to be made.
type device struct {
	Name       string  `json:"name"`
	MAC        string  `json:"mac"`
	MultiQueue bool    `json:"multiQueue,omitempty"`
	Owner      *uint32 `json:"owner,omitempty"` // nil: whoever may configure the network
	Group      *uint32 `json:"group,omitempty"`
}

// cloner is the file whose descriptors become taps.
const cloner = "/dev/net/tun"

func available() error {
	if _, err := os.Stat(cloner); err != nil {
		return fmt.Errorf("no tap interfaces: %w (`modprobe tun` makes it)", err)
	}
	return nil
}

// create makes the tap in ns, persistent and down: without packet information
// and without virtio's header, as ip(8) makes them. Until the last step it goes
// when the descriptor is closed, so there is nothing to undo.
func create(ns *netns.NS, d device) (err error) {
	mac, err := net.ParseMAC(d.MAC)
	if err != nil {
		return err
	}
	fd, err := ns.OpenFile(cloner, unix.O_RDWR)
	if err != nil {
		return fmt.Errorf("create tap %s: %w", d.Name, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for _, step := range []func() error{
		func() error { return d.claim(fd) },
		func() error { return setMAC(fd, mac) },
		func() error { return setID(fd, unix.TUNSETOWNER, d.Owner) },
		func() error { return setID(fd, unix.TUNSETGROUP, d.Group) },
		func() error { return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("create tap %s: %w", d.Name, err)
		}
	}
	return nil
}

// claim makes the interface of the name; one that exists is EBUSY.
func (d *device) claim(fd int) error {
	req, err := unix.NewIfreq(d.Name)
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
	if d.MultiQueue {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return os.NewSyscallError("ioctl TUNSETIFF", err)
	}
	if req.Name() != d.Name {
		return fmt.Errorf("the kernel called it %s", req.Name()) // the name was a pattern: "tap%d"
	}
	return nil
}

func setID(fd int, request uint, id *uint32) error {
	if id == nil {
		return nil
	}
	return os.NewSyscallError("ioctl TUNSETOWNER or TUNSETGROUP", unix.IoctlSetInt(fd, request, int(*id)))
}

// setMAC sets the address of the interface that fd is.
func setMAC(fd int, mac net.HardwareAddr) error {
	var req struct { // struct ifreq with a struct sockaddr
		name   [unix.IFNAMSIZ]byte
		family uint16
		data   [22]byte
	}
	req.family = unix.ARPHRD_ETHER
	copy(req.data[:], mac)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return os.NewSyscallError("ioctl SIOCSIFHWADDR", errno)
	}
	return nil
}
