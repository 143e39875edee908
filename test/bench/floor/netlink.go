//go:build linux && (amd64 || arm64)

package main

import (
	"syscall"
	"unsafe"
)

// Numbers that package syscall lacks.
const (
	vethInfoPeer      = 1
	macvlanMode       = 1
	macvlanBridge     = 4
	iflaAFSpec        = 26
	iflaNetNSFD       = 28
	iflaInet6AddrGen  = 8
	addrGenNone       = 1
	ifaFlags          = 8
	addrNoDAD         = 0x02
	addrNoPrefixRoute = 0x200
	flagMayExist      = 1 << 31 // ours: the address may be there already
	scopeLink         = 253
	nested            = 0x8000
	replySize         = 8192
)

// socket is a netlink socket and the requests that wait for one sendmsg.
type socket struct {
	fd        int
	buf       []byte
	start     int   // of the last request in buf
	seq       byte  // of the last request
	mayExist  int32 // bit set of requests whose EEXIST is fine
	container []int // offsets of the attributes that are open
}

// route is one route; an empty dst is the default route.
type route struct {
	link     uint32
	dst      prefix
	via, src addr
	scope    byte
	family   byte // needed only where dst is empty
}

// open makes a netlink socket in the thread's network namespace.
func open() (*socket, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &socket{fd: fd, buf: make([]byte, 0, 1024)}, nil
}

// index returns the index of the link called name, and 0 where there is none: the request that uses it then fails.
func (s *socket) index(name string) uint32 {
	var req [40]byte
	copy(req[:15], name)
	_, _, _ = syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(s.fd), syscall.SIOCGIFINDEX, uintptr(unsafe.Pointer(&req)))
	return *(*uint32)(unsafe.Pointer(&req[16]))
}

// request begins a request of the given type; the one before it is complete.
func (s *socket) request(typ, flags uint16, header ...byte) {
	s.finish()
	s.start = len(s.buf)
	s.seq++
	s.buf = append(s.buf, 0, 0, 0, 0)
	s.put16(typ)
	s.put16(flags | syscall.NLM_F_REQUEST)
	s.buf = append(s.buf, s.seq, 0, 0, 0, 0, 0, 0, 0)
	s.buf = append(s.buf, header...)
}

// finish writes the last request's length.
func (s *socket) finish() {
	if len(s.buf) > 0 {
		s.poke16(s.start, len(s.buf)-s.start)
	}
}

// send sends all requests in one message and waits for the answer to the last. Errors always come, successes only for
// the last request, which alone asks for it.
func (s *socket) send() error {
	s.finish()
	s.buf[s.start+6] |= syscall.NLM_F_ACK
	if err := syscall.Sendto(s.fd, s.buf, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	s.buf = s.buf[:0]
	reply := make([]byte, replySize)
	for {
		n, _, err := syscall.Recvfrom(s.fd, reply, 0)
		if err != nil {
			return err
		}
		done, err := s.answers(reply[:n])
		if done || err != nil {
			return err
		}
	}
}

// answers reads error messages until the last request's.
func (s *socket) answers(b []byte) (bool, error) {
	for len(b) >= 20 {
		size := int(*(*uint32)(unsafe.Pointer(&b[0])))
		seq := b[8]
		errno := syscall.Errno(-*(*int32)(unsafe.Pointer(&b[16])))
		if errno == syscall.EEXIST && s.mayExist&(1<<seq) != 0 {
			errno = 0
		}
		if errno != 0 {
			return true, errno
		}
		if seq == s.seq {
			return true, nil
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}

func (s *socket) put16(v uint16) { s.buf = append(s.buf, byte(v), byte(v>>8)) }

func (s *socket) poke16(at, v int) { s.buf[at], s.buf[at+1] = byte(v), byte(v>>8) }

// attr appends an attribute.
func (s *socket) attr(typ uint16, value ...byte) {
	s.put16(uint16(len(value) + 4))
	s.put16(typ)
	s.buf = append(s.buf, value...)
	for len(s.buf)%4 != 0 {
		s.buf = append(s.buf, 0)
	}
}

// attr32 appends an attribute that holds a number.
func (s *socket) attr32(typ uint16, v uint32) { s.attr(typ, word(v)...) }

// begin opens an attribute that holds others; end closes it.
func (s *socket) begin(typ uint16) {
	s.container = append(s.container, len(s.buf))
	s.put16(0)
	s.put16(typ | nested)
}

func (s *socket) end() {
	last := len(s.container) - 1
	s.poke16(s.container[last], len(s.buf)-s.container[last])
	s.container = s.container[:last]
}

// word returns v in the machine's order, which is little-endian on every machine that this file is built for.
func word(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }
