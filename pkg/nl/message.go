package nl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A Message is one netlink request that is being built. What says in words what
// it asks for ("create veth veth1a2b3c4d"); errors and tests speak of it so.
type Message struct {
	What  string
	Type  uint16
	Flags uint16 // beside NLM_F_REQUEST, which is always set
	// Ignore lists what counts as success: EEXIST for "ensure", ENODEV for
	// "is gone".
	Ignore []unix.Errno
	// Query says that a message of another protocol than rtnetlink only asks.
	Query bool
	// Reply, if set, is called with the body of each answer (NLM_F_ECHO or a
	// query), past the netlink header.
	Reply func(body []byte) error

	body []byte
	nest []int
}

// changes reports whether the message asks the kernel for a change. The four
// rtnetlink message types of a family are NEW, DEL, GET, SET in this order;
// other protocols say so by Query.
func (m *Message) changes() bool {
	rtnetlinkGet := m.Type >= unix.RTM_BASE && m.Type < 1<<8 && m.Type&3 == 2
	return !m.Query && !rtnetlinkGet
}

// NewMessage starts a message with the family's fixed header.
func NewMessage(what string, typ, flags uint16, header ...byte) *Message {
	return &Message{What: what, Type: typ, Flags: flags, body: append(make([]byte, 0, 256), header...)}
}

// Attr adds an attribute.
func (m *Message) Attr(typ uint16, data []byte) *Message {
	l := unix.SizeofRtAttr + len(data)
	m.body = binary.NativeEndian.AppendUint16(m.body, uint16(l))
	m.body = binary.NativeEndian.AppendUint16(m.body, typ)
	m.body = append(m.body, data...)
	for len(m.body)%unix.RTA_ALIGNTO != 0 {
		m.body = append(m.body, 0)
	}
	return m
}

// Uint8 adds an attribute of one byte.
func (m *Message) Uint8(typ uint16, v uint8) *Message { return m.Attr(typ, []byte{v}) }

// Uint16 adds a 16-bit attribute in the host's byte order.
func (m *Message) Uint16(typ, v uint16) *Message {
	return m.Attr(typ, binary.NativeEndian.AppendUint16(nil, v))
}

// Uint32 adds a 32-bit attribute in the host's byte order.
func (m *Message) Uint32(typ uint16, v uint32) *Message {
	return m.Attr(typ, binary.NativeEndian.AppendUint32(nil, v))
}

// String adds a string with its final zero byte.
func (m *Message) String(typ uint16, s string) *Message {
	return m.Attr(typ, append([]byte(s), 0))
}

// IP adds an address in network order.
func (m *Message) IP(typ uint16, a netip.Addr) *Message { return m.Attr(typ, a.AsSlice()) }

// Begin opens a nested attribute; End closes the innermost one.
func (m *Message) Begin(typ uint16) *Message {
	m.nest = append(m.nest, len(m.body))
	m.body = binary.NativeEndian.AppendUint16(m.body, 0)
	m.body = binary.NativeEndian.AppendUint16(m.body, typ)
	return m
}

// Raw adds bytes as they are: a header inside of a nested attribute.
func (m *Message) Raw(b []byte) *Message {
	m.body = append(m.body, b...)
	return m
}

// End closes the attribute that the last Begin opened.
func (m *Message) End() *Message {
	at := m.nest[len(m.nest)-1]
	m.nest = m.nest[:len(m.nest)-1]
	binary.NativeEndian.PutUint16(m.body[at:], uint16(len(m.body)-at))
	return m
}

// Body returns what follows the netlink header.
func (m *Message) Body() []byte { return m.body }

// append adds the whole message, header first, to buf.
func (m *Message) append(buf []byte, seq uint32, flags uint16) []byte {
	buf = binary.NativeEndian.AppendUint32(buf, uint32(unix.SizeofNlMsghdr+len(m.body)))
	buf = binary.NativeEndian.AppendUint16(buf, m.Type)
	buf = binary.NativeEndian.AppendUint16(buf, m.Flags|flags|unix.NLM_F_REQUEST)
	buf = binary.NativeEndian.AppendUint32(buf, seq)
	buf = binary.NativeEndian.AppendUint32(buf, 0)
	return append(buf, m.body...)
}

// Attrs calls fn with each attribute of b; nested flags are taken off the type.
// A malformed tail ends the walk.
func Attrs(b []byte, fn func(typ uint16, data []byte)) {
	RawAttrs(b, func(typ uint16, data []byte) { fn(typ&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data) })
}

// RawAttrs is Attrs with the flags left in the type.
func RawAttrs(b []byte, fn func(typ uint16, data []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		l := int(binary.NativeEndian.Uint16(b))
		if l < unix.SizeofRtAttr || l > len(b) {
			return
		}
		fn(binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:l])
		next := (l + unix.RTA_ALIGNTO - 1) &^ (unix.RTA_ALIGNTO - 1)
		if next >= len(b) {
			return
		}
		b = b[next:]
	}
}

// Uint8 reads an attribute of one byte; an empty one is 0.
func Uint8(d []byte) uint8 {
	if len(d) == 0 {
		return 0
	}
	return d[0]
}

// Uint16 reads an attribute in the host's byte order; a shorter one is 0.
func Uint16(d []byte) uint16 {
	if len(d) < 2 {
		return 0
	}
	return binary.NativeEndian.Uint16(d)
}

// Uint32 reads an attribute in the host's byte order; a shorter one is 0.
func Uint32(d []byte) uint32 {
	if len(d) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(d)
}

// Uint64 reads an attribute in the host's byte order; a shorter one is 0.
func Uint64(d []byte) uint64 {
	if len(d) < 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(d)
}

// After returns what follows the first n bytes of a body, which are its header;
// nothing where it is shorter.
func After(body []byte, n int) []byte { return body[min(n, len(body)):] }

// NetworkOrder turns a number into what a field of the network's byte order
// (__be16) holds as a number of the host's: htons(3).
func NetworkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
