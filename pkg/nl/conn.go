// Package nl speaks netlink in the two network namespaces of a CNI call,
// without moving a thread into either for longer than it takes to open a socket.
//
// Several requests go to the kernel in one system call (Conn.Do). The kernel
// carries on after a request that it refuses, so a caller that sees an error
// takes back all that the call may have made.
package nl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/netns"
)

// Conn is a netlink socket in one network namespace. It is not safe for
// concurrent use.
type Conn struct {
	fd   int
	seq  uint32
	gate gate.Gate
	buf  []byte
}

// Error is the kernel's refusal of one request.
type Error struct {
	What  string // the request in words
	Errno unix.Errno
	Words string // the kernel's own explanation, or ""
}

func (e *Error) Error() string {
	if e.Words != "" {
		return e.What + ": " + e.Errno.Error() + " (" + e.Words + ")"
	}
	return e.What + ": " + e.Errno.Error()
}

func (e *Error) Unwrap() error { return e.Errno }

// Dial opens a socket of the netlink protocol (unix.NETLINK_ROUTE, …) in ns; a
// nil ns is the calling thread's namespace.
func Dial(ns *netns.NS, protocol int, g gate.Gate) (*Conn, error) {
	c := &Conn{gate: g, buf: make([]byte, datagram)}
	open := func() (err error) {
		c.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		return os.NewSyscallError("netlink socket", err)
	}
	var err error
	if ns == nil {
		err = open()
	} else {
		err = ns.Do(open)
	}
	if err != nil {
		return nil, err
	}
	// Explanations instead of a copy of the request; kernels that know neither
	// (before 4.12) send the copy, which parse skips.
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	// The kernel then refuses what others send to this socket: they can neither
	// fill its buffer nor end its waiting. What came before is skipped by receive.
	if err := unix.Connect(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(os.NewSyscallError("netlink connect", err), c.Close())
	}
	return c, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Fd returns the socket's descriptor. It stays c's.
func (c *Conn) Fd() int { return c.fd }

// Do sends the requests in one system call and reads the answers. The kernel
// carries out each in turn, also after one that it refuses; the errors of those
// are joined, each an *Error. Requests that change something pass the gate
// first; one that the gate refuses is not sent.
func (c *Conn) Do(msgs ...*Message) error {
	var errs []error
	pending := make([]*Message, 0, len(msgs))
	for _, m := range msgs {
		if m.changes() {
			if err := c.gate.Pass(m.What); err != nil {
				errs = append(errs, m.judge(err))
				continue
			}
		}
		pending = append(pending, m)
	}
	if len(pending) > 0 {
		errs = append(errs, c.exchange(pending))
	}
	return errors.Join(errs...)
}

// judge gives the gate's refusal the form of the kernel's.
func (m *Message) judge(err error) error {
	if m.forgives(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", m.What, err)
}

func (m *Message) forgives(err error) bool {
	for _, f := range m.Ignore {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// Transact sends an nfnetlink batch: begin opens the transaction, end closes it,
// and the kernel makes all the changes of msgs or none. It passes the gate once,
// as what.
func (c *Conn) Transact(what string, begin, end *Message, msgs ...*Message) error {
	if err := c.gate.Pass(what); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return c.roundTrip(append([]*Message{begin}, msgs...), end)
}

func (c *Conn) exchange(msgs []*Message) error { return c.roundTrip(msgs, nil) }

// roundTrip sends msgs and reads until the last of them is answered. end, which
// the kernel does not answer, closes a batch; where its first message is refused,
// no other answer need come.
func (c *Conn) roundTrip(msgs []*Message, end *Message) error {
	first := c.seq + 1
	out := c.encode(msgs)
	if end != nil {
		c.seq++
		out = end.append(out, c.seq, 0)
	}
	if err := c.send(out); err != nil {
		return fmt.Errorf("%s: %w", msgs[0].What, err)
	}
	var errs []error
	for done := false; !done; {
		n, err := c.receive()
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("%s: %w", msgs[len(msgs)-1].What, err))...)
		}
		done, err = c.answers(c.buf[:n], first, msgs)
		errs = append(errs, err)
		done = done || end != nil && err != nil && binary.NativeEndian.Uint32(c.buf[8:]) == first
	}
	return errors.Join(errs...)
}

// encode numbers the messages and asks for an acknowledgement of the last. What
// it returns may lie in the buffer that the answers will.
func (c *Conn) encode(msgs []*Message) []byte {
	out := c.buf[:0]
	for i, m := range msgs {
		c.seq++
		var flags uint16
		if i == len(msgs)-1 && m.Flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
			flags = unix.NLM_F_ACK
		}
		out = m.append(out, c.seq, flags)
	}
	return out
}

func (c *Conn) send(b []byte) error {
	for grown := false; ; {
		_, err := unix.SendmsgN(c.fd, b, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
		if err == unix.EMSGSIZE && !grown {
			// A message must fit into the socket's buffer, which the force may take
			// above the system's limit.
			_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(b))
			grown = true
			continue
		}
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// datagram is more than the kernel puts into one answer: 32 KiB of a dump, or a
// single message, whose attributes have 16-bit lengths.
const datagram = 64 << 10

// receive reads one datagram of the kernel's. Whoever has CAP_NET_ADMIN in the
// socket's namespace, as a container may, can send to it as well: that is skipped.
func (c *Conn) receive() (int, error) {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR, err == nil && !ofKernel(from):
			continue
		case err != nil:
			return 0, os.NewSyscallError("recvfrom", err)
		case n > len(c.buf):
			return 0, fmt.Errorf("netlink answer of %d bytes: more than %d", n, len(c.buf))
		}
		return n, nil
	}
}

// ofKernel reports whether a datagram's sender is the kernel, which has port ID 0.
// No process can have that.
func ofKernel(from unix.Sockaddr) bool {
	a, ok := from.(*unix.SockaddrNetlink)
	return ok && a.Pid == 0
}

// answers handles the messages of one datagram. done means that the last
// request is answered.
func (c *Conn) answers(b []byte, first uint32, msgs []*Message) (done bool, err error) {
	var errs []error
	for len(b) >= unix.SizeofNlMsghdr {
		l := length(b)
		if l < unix.SizeofNlMsghdr || l > len(b) {
			break
		}
		typ, flags, seq := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:])
		i := seq - first
		if i < uint32(len(msgs)) {
			end, aerr := msgs[i].answer(typ, flags, b[unix.SizeofNlMsghdr:l])
			errs = append(errs, aerr)
			done = done || end && int(i) == len(msgs)-1
		}
		b = b[min((l+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return done, errors.Join(errs...)
}

// length reads the length of a message from its header. One that no datagram can
// have is longer than any, also where an int has 32 bits.
func length(header []byte) int {
	return int(min(binary.NativeEndian.Uint32(header), 2*datagram))
}

// errInconsistent says that the table changed while it was dumped.
var errInconsistent = errors.New("dump interrupted by a change")

// answer handles one message that answers m; end means that no more follow.
func (m *Message) answer(typ, flags uint16, body []byte) (end bool, err error) {
	switch typ {
	case unix.NLMSG_ERROR, unix.NLMSG_DONE:
		return true, m.verdict(flags, body)
	case unix.NLMSG_NOOP:
		return false, nil
	}
	if flags&unix.NLM_F_DUMP_INTR != 0 {
		err = errInconsistent
	}
	if m.Reply != nil {
		err = errors.Join(err, m.Reply(body))
	}
	return false, err
}

// verdict reads the errno, and what the kernel has to say about it.
func (m *Message) verdict(flags uint16, body []byte) error {
	if len(body) < 4 {
		return nil
	}
	code := int32(binary.NativeEndian.Uint32(body))
	if flags&unix.NLM_F_DUMP_INTR != 0 {
		return errInconsistent
	}
	if code >= 0 {
		return nil
	}
	e := &Error{What: m.What, Errno: unix.Errno(-code)}
	if m.forgives(e) {
		return nil
	}
	if flags&unix.NLM_F_ACK_TLVS != 0 && len(body) >= 4+unix.SizeofNlMsghdr {
		at := 4 + unix.SizeofNlMsghdr
		if flags&unix.NLM_F_CAPPED == 0 {
			at = min(len(body), 4+length(body[4:]))
		}
		Attrs(body[at:], func(typ uint16, data []byte) {
			if typ == unix.NLMSGERR_ATTR_MSG {
				e.Words = cstring(data)
			}
		})
	}
	return e
}

// dumpTries is how often a dump is repeated that a concurrent change made
// inconsistent, before the call fails.
const dumpTries = 10

// Dump sends a query for many objects; m.Reply sees each. reset is called
// before each attempt: a dump that a concurrent change made inconsistent is
// repeated.
func (c *Conn) Dump(m *Message, reset func()) error {
	m.Flags |= unix.NLM_F_DUMP
	for try := 1; ; try++ {
		reset()
		err := c.exchange([]*Message{m})
		switch {
		case !errors.Is(err, errInconsistent):
			return err
		case try == dumpTries:
			return fmt.Errorf("%s: %w", m.What, err)
		}
	}
}

// StrictDumps makes the kernel honour the filters of a dump's header
// (NETLINK_GET_STRICT_CHK, Linux 4.20).
func (c *Conn) StrictDumps() error {
	return os.NewSyscallError("setsockopt NETLINK_GET_STRICT_CHK", unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1))
}

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
