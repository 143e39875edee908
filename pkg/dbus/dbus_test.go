package dbus

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
)

// message is a message from a bus: of the kind, in answer to the call with the
// serial, with a string for a body.
func message(order binary.AppendByteOrder, kind byte, serial uint32, body string) []byte {
	head := byte('l')
	if order == binary.AppendByteOrder(binary.BigEndian) {
		head = 'B'
	}
	fields := order.AppendUint32([]byte{fieldReplySerial, 1, 'u', 0}, serial)
	fields = append(fields, fieldSignature, 1, 'g', 0, 1, 's', 0)
	text := append(order.AppendUint32(nil, uint32(len(body))), body+"\x00"...)
	b := []byte{head, kind, 0, version}
	b = order.AppendUint32(b, uint32(len(text)))
	b = order.AppendUint32(b, 9)
	b = order.AppendUint32(b, uint32(len(fields)))
	b = append(b, fields...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return append(b, text...)
}

// bus is a bus that says what it says, whatever it is asked.
func bus(t testing.TB, says []byte) *Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	t.Cleanup(func() { _ = theirs.Close() })
	return &Conn{c: ours, r: bufio.NewReader(bytes.NewReader(says))}
}

func TestCall(t *testing.T) {
	for name, c := range map[string]struct {
		says      []byte
		text, err string
	}{
		"answer":          {message(binary.LittleEndian, methodReturn, 1, "yes"), "yes", ""},
		"other order":     {message(binary.BigEndian, methodReturn, 1, "yes"), "yes", ""},
		"error":           {message(binary.LittleEndian, errorReply, 1, "no such zone"), "", "Ask: no such zone"},
		"others first":    {append(message(binary.LittleEndian, methodReturn, 7, "x"), message(binary.LittleEndian, methodReturn, 1, "yes")...), "yes", ""},
		"a signal first":  {append(message(binary.LittleEndian, 4, 1, "x"), message(binary.LittleEndian, methodReturn, 1, "yes")...), "yes", ""},
		"cut short":       {message(binary.LittleEndian, methodReturn, 1, "yes")[:30], "", "Ask: unexpected EOF"},
		"nothing":         {nil, "", "Ask: EOF"},
		"too long":        {append([]byte{'l', methodReturn, 0, 1, 255, 255, 255, 255}, make([]byte, 8)...), "", "Ask: message of 4294967295 bytes"},
		"error, no words": {message(binary.LittleEndian, errorReply, 1, "")[:40], "", "Ask: "},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := bus(t, c.says).Call(Method{Bus, "/x", Bus, "Ask"})
			if (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if err == nil && r.text() != c.text {
				t.Errorf("answer %q, want %q", r.text(), c.text)
			}
		})
	}
}

// Whatever a bus says, it is read to its end, or to an error.
func FuzzCall(f *testing.F) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		f.Add(message(order, methodReturn, 1, "yes"))
		f.Add(message(order, errorReply, 1, "no such zone"))
		f.Add(append(message(order, 4, 0, "signal"), message(order, methodReturn, 1, "")...))
	}
	f.Fuzz(func(t *testing.T, says []byte) {
		c := &Conn{r: bufio.NewReader(bytes.NewReader(says))}
		for {
			in, err := c.read()
			if err != nil {
				return
			}
			_, _ = in.Bool(), in.text()
			if len(in.body) > maxLength {
				t.Errorf("a body of %d bytes", len(in.body))
			}
		}
	})
}
