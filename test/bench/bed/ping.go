package bed

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long an address may take to answer: a contender need not wait for duplicate address detection, which
// takes a second or two.
const patience = 5 * time.Second

// errSilent says that nothing answered.
var errSilent = errors.New("no answer")

// echo is how one family says ping.
type echo struct {
	family, protocol int
	request          []byte
	reply            byte // type of the answer
	header           int  // bytes before the answer's type
}

// The kernel fills in ICMPv6's checksum.
var (
	echo4 = echo{unix.AF_INET, unix.IPPROTO_ICMP, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, 0, 20}
	echo6 = echo{unix.AF_INET6, unix.IPPROTO_ICMPV6, []byte{128, 0, 0, 0, 0, 0, 0, 0}, 129, 0}
)

// ping sends echo requests from the thread's namespace until one is answered.
func ping(to netip.Addr) error {
	e, address := echo6, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.As16()})
	if to.Is4() {
		e, address = echo4, &unix.SockaddrInet4{Addr: to.As4()}
	}
	fd, err := unix.Socket(e.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, e.protocol)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return err
	}
	err = errSilent
	for end := time.Now().Add(patience); time.Now().Before(end); {
		// An address that is still tentative cannot be sent from: that is an error which passes.
		if sendErr := unix.Sendto(fd, e.request, 0, address); sendErr != nil {
			err = sendErr
		}
		if e.answered(fd) {
			return nil
		}
	}
	return err
}

// answered waits for an echo reply.
func (e echo) answered(fd int) bool {
	buf := make([]byte, 1500)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return false
		}
		if n > e.header && buf[e.header] == e.reply {
			return true
		}
	}
}
