// Package dbus calls methods on the system bus whose arguments are strings. It
// is all that talking to firewalld takes, and costs nothing at the start of a
// plugin; a whole D-Bus library costs more than many an ADD.
package dbus

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Bus is the name of the bus itself, and of its interface.
const Bus = "org.freedesktop.DBus"

// Conn is a connection to a bus.
type Conn struct {
	c      net.Conn
	r      *bufio.Reader
	serial uint32
}

// Method is a method of an object.
type Method struct{ Dest, Path, Interface, Name string }

// Reply is what a method returned.
type Reply struct {
	order binary.ByteOrder
	body  []byte
}

// Bool returns the reply's first argument, a boolean.
func (r Reply) Bool() bool { return len(r.body) >= 4 && r.order.Uint32(r.body) != 0 }

// timeout bounds a whole conversation: the caller waits for it.
const timeout = 10 * time.Second

// System connects to the system bus.
func System() (_ *Conn, err error) {
	nc, err := net.DialTimeout("unix", address(), timeout)
	if err != nil {
		return nil, fmt.Errorf("system bus: %w", err)
	}
	c := &Conn{c: nc, r: bufio.NewReader(nc)}
	if err := errors.Join(nc.SetDeadline(time.Now().Add(timeout)), c.hello()); err != nil {
		return nil, errors.Join(fmt.Errorf("system bus: %w", err), nc.Close())
	}
	return c, nil
}

func address() string {
	for a := range strings.SplitSeq(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), ";") {
		path, ok := strings.CutPrefix(a, "unix:path=")
		path, _, _ = strings.Cut(path, ",")
		if ok {
			return path
		}
	}
	return "/run/dbus/system_bus_socket"
}

// hello authenticates by the socket's credentials and takes a name.
func (c *Conn) hello() error {
	uid := hex.EncodeToString([]byte(strconv.Itoa(os.Getuid())))
	if _, err := io.WriteString(c.c, "\x00AUTH EXTERNAL "+uid+"\r\n"); err != nil {
		return err
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "OK ") {
		return fmt.Errorf("refused: %s", strings.TrimSpace(line))
	}
	if _, err := io.WriteString(c.c, "BEGIN\r\n"); err != nil {
		return err
	}
	_, err = c.Call(Method{Bus, "/org/freedesktop/DBus", Bus, "Hello"})
	return err
}

// Close ends the connection.
func (c *Conn) Close() error { return c.c.Close() }

// From the D-Bus specification.
const (
	methodCall   = 1
	methodReturn = 2
	errorReply   = 3

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8

	version   = 1
	maxLength = 1 << 20 // of a reply that is taken
)

// Call calls the method and waits for its answer.
func (c *Conn) Call(m Method, args ...string) (Reply, error) {
	c.serial++
	if _, err := c.c.Write(encode(m, c.serial, args)); err != nil {
		return Reply{}, fmt.Errorf("%s: %w", m.Name, err)
	}
	for {
		in, err := c.read()
		if err != nil {
			return Reply{}, fmt.Errorf("%s: %w", m.Name, err)
		}
		switch {
		case in.answers != c.serial || in.kind != methodReturn && in.kind != errorReply:
		case in.kind == errorReply:
			return Reply{}, fmt.Errorf("%s: %s", m.Name, in.text())
		default:
			return in.Reply, nil
		}
	}
}

// text returns the reply's first argument, a string.
func (r Reply) text() string {
	if len(r.body) < 4 {
		return "refused"
	}
	n := int(r.order.Uint32(r.body))
	return string(r.body[4:min(len(r.body), 4+max(0, n))])
}

type buffer []byte

func (b *buffer) align(n int) {
	for len(*b)%n != 0 {
		*b = append(*b, 0)
	}
}

func (b *buffer) u32(v uint32) {
	b.align(4)
	*b = binary.LittleEndian.AppendUint32(*b, v)
}

func (b *buffer) str(s string) {
	b.u32(uint32(len(s)))
	*b = append(append(*b, s...), 0)
}

// field writes one header field: a string, an object path or a signature.
func (b *buffer) field(code byte, typ, s string) {
	b.align(8)
	*b = append(*b, code, 1, typ[0], 0)
	if typ == "g" {
		*b = append(append(append(*b, byte(len(s))), s...), 0)
		return
	}
	b.str(s)
}

func encode(m Method, serial uint32, args []string) []byte {
	var body, fields buffer
	for _, a := range args {
		body.str(a)
	}
	fields.field(fieldPath, "o", m.Path)
	fields.field(fieldInterface, "s", m.Interface)
	fields.field(fieldMember, "s", m.Name)
	fields.field(fieldDestination, "s", m.Dest)
	if len(args) > 0 {
		fields.field(fieldSignature, "g", strings.Repeat("s", len(args)))
	}
	msg := buffer{'l', methodCall, 0, version}
	msg.u32(uint32(len(body)))
	msg.u32(serial)
	msg.u32(uint32(len(fields)))
	msg = append(msg, fields...) // it begins at 16, so that its fields stay aligned
	msg.align(8)
	return append(msg, body...)
}

// incoming is a message from the bus.
type incoming struct {
	Reply
	kind    byte
	answers uint32 // the serial of the call
}

func (c *Conn) read() (in incoming, err error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(c.r, head); err != nil {
		return in, err
	}
	in.kind, in.order = head[1], binary.LittleEndian
	if head[0] == 'B' {
		in.order = binary.BigEndian
	}
	length, fields := in.order.Uint32(head[4:]), in.order.Uint32(head[12:])
	if length > maxLength || fields > maxLength {
		return in, fmt.Errorf("message of %d bytes", length)
	}
	rest := make([]byte, (fields+7)&^7+length)
	if _, err := io.ReadFull(c.r, rest); err != nil {
		return in, err
	}
	in.body, in.answers = rest[(fields+7)&^7:], replySerial(rest[:fields], in.order)
	return in, nil
}

// replySerial finds the field that says which call is answered.
func replySerial(b []byte, order binary.ByteOrder) uint32 {
	at := 0
	for at+8 <= len(b) {
		code, typ := b[at], b[at+2]
		at += 4
		switch typ {
		case 'u':
			if code == fieldReplySerial {
				return order.Uint32(b[at:])
			}
			at += 4
		case 'g':
			at += int(b[at]) + 2
		default: // 's', 'o'
			at += 4 + int(order.Uint32(b[at:])) + 1
		}
		at = (at + 7) &^ 7
	}
	return 0
}
