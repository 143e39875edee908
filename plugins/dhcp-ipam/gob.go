package dhcp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// This file speaks as much of encoding/gob as a call and its answer need. The
// package itself would cost every start of every plugin 0.2 ms and net/rpc
// another 0.5, since both build tables when they are initialised.

// The types that gob knows from the start, by their numbers.
const (
	gobBool   = 1
	gobInt    = 2
	gobUint   = 3
	gobFloat  = 4
	gobBytes  = 5
	gobString = 6
	// Types of the messages that define types.
	gobWire, gobArray, gobCommon, gobSlice, gobStruct, gobField, gobFields, gobMap = 16, 17, 18, 19, 20, 21, 22, 23
	// The first two that a sender may define.
	gobRequest, gobCmdArgs = 65, 66
)

// gobWriter builds one message.
type gobWriter []byte

func (w *gobWriter) uint(v uint64) {
	if v < 128 {
		*w = append(*w, byte(v))
		return
	}
	n := (bits.Len64(v) + 7) / 8
	*w = append(*w, byte(-n))
	for i := n - 1; i >= 0; i-- {
		*w = append(*w, byte(v>>(8*i)))
	}
}

func (w *gobWriter) int(v int64) { w.uint(uint64(v<<1) ^ uint64(v>>63)) }

func (w *gobWriter) string(s string) {
	w.uint(uint64(len(s)))
	*w = append(*w, s...)
}

// gobMember is a field of a struct: its name, type and, in a value, content.
type gobMember struct {
	name    string
	typ     int64
	content string
}

// define writes the message that defines a struct: a wireType whose third field
// is a structType{commonType{Name, Id}, []fieldType{Name, Id}}.
func (w *gobWriter) define(id int64, name string, fields []gobMember) {
	w.int(-id)
	w.uint(3)
	w.uint(1)
	w.uint(1)
	w.string(name)
	w.uint(1)
	w.int(id)
	w.uint(0)
	w.uint(1)
	w.uint(uint64(len(fields)))
	for _, f := range fields {
		w.uint(1)
		w.string(f.name)
		w.uint(1)
		w.int(f.typ)
		w.uint(0)
	}
	w.uint(0)
	w.uint(0)
}

// value writes a struct of that type. Empty fields are left out, as gob does.
func (w *gobWriter) value(id int64, fields []gobMember) {
	w.int(id)
	skipped := uint64(1)
	for _, f := range fields {
		if f.content == "" {
			skipped++
			continue
		}
		w.uint(skipped)
		w.string(f.content)
		skipped = 1
	}
	w.uint(0)
}

// encodeCall returns the messages of one call. Its sequence number is 0, which
// gob leaves out.
func encodeCall(method string, a CmdArgs) []byte {
	request := []gobMember{{"ServiceMethod", gobString, method}, {"Seq", gobUint, ""}}
	args := []gobMember{
		{"ContainerID", gobString, a.ContainerID},
		{"Netns", gobString, a.Netns},
		{"IfName", gobString, a.IfName},
		{"Args", gobString, a.Args},
		{"Path", gobString, a.Path},
		{"NetnsOverride", gobString, a.NetnsOverride},
		{"StdinData", gobBytes, string(a.StdinData)},
	}
	var out, m gobWriter
	send := func() { out.string(string(m)); m = m[:0] }
	m.define(gobRequest, "Request", request)
	send()
	m.value(gobRequest, request)
	send()
	m.define(gobCmdArgs, "CmdArgs", args)
	send()
	m.value(gobCmdArgs, args)
	send()
	return out
}

// gobType is a type that the sender has defined.
type gobType struct {
	elem   int64 // of an array or slice
	fields []gobMember
}

// gobReader reads values of any type from a stream. They become bool, int64,
// uint64, []byte, string, []any and map[string]any.
type gobReader struct {
	in    *bufio.Reader
	types map[int64]gobType
	buf   []byte // the rest of the message
}

const (
	maxGobMessage = 1 << 20
	maxGobDepth   = 16
)

var errGob = errors.New("malformed gob message")

func newGobReader(in *bufio.Reader) *gobReader {
	id := func(name string) gobMember { return gobMember{name: name, typ: gobInt} }
	common := gobMember{name: "common", typ: gobCommon}
	return &gobReader{in: in, types: map[int64]gobType{
		gobWire: {fields: []gobMember{
			{name: "array", typ: gobArray}, {name: "slice", typ: gobSlice}, {name: "struct", typ: gobStruct}, {name: "map", typ: gobMap},
		}},
		gobCommon: {fields: []gobMember{{name: "name", typ: gobString}, id("id")}},
		gobArray:  {fields: []gobMember{common, id("elem"), id("len")}},
		gobSlice:  {fields: []gobMember{common, id("elem")}},
		gobStruct: {fields: []gobMember{common, {name: "fields", typ: gobFields}}},
		gobField:  {fields: []gobMember{{name: "name", typ: gobString}, id("id")}},
		gobFields: {elem: gobField},
		gobMap:    {fields: []gobMember{common, id("key"), id("elem")}},
	}}
}

// next reads the next value, and the definitions of types before it.
func (r *gobReader) next() (any, error) {
	for {
		if err := r.message(); err != nil {
			return nil, err
		}
		id, err := r.int()
		if err != nil {
			return nil, err
		}
		if id > 0 {
			return r.top(id)
		}
		def, err := r.value(gobWire, 0)
		if err != nil {
			return nil, err
		}
		r.types[-id] = define(def)
	}
}

// message reads a whole message into buf.
func (r *gobReader) message() error {
	n, err := gobUvarint(r.in.ReadByte)
	if err != nil {
		return err
	}
	if n > maxGobMessage {
		return errGob
	}
	r.buf = make([]byte, n)
	_, err = io.ReadFull(r.in, r.buf)
	return err
}

// top reads the value of a message: one that is no struct has a zero before it.
func (r *gobReader) top(id int64) (any, error) {
	if t, ok := r.types[id]; !ok || t.elem != 0 {
		if zero, err := r.byte(); err != nil || zero != 0 {
			return nil, errGob
		}
	}
	return r.value(id, 0)
}

// define reads a type's definition; one of an unsupported kind has no fields.
func define(def any) gobType {
	wire, _ := def.(map[string]any)
	for _, kind := range []string{"array", "slice"} {
		if s, ok := wire[kind].(map[string]any); ok {
			elem, _ := s["elem"].(int64)
			return gobType{elem: elem}
		}
	}
	s, _ := wire["struct"].(map[string]any)
	list, _ := s["fields"].([]any)
	t := gobType{}
	for _, f := range list {
		m, _ := f.(map[string]any)
		name, _ := m["name"].(string)
		id, _ := m["id"].(int64)
		t.fields = append(t.fields, gobMember{name: name, typ: id})
	}
	return t
}

func (r *gobReader) byte() (byte, error) {
	if len(r.buf) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	b := r.buf[0]
	r.buf = r.buf[1:]
	return b, nil
}

func (r *gobReader) uint() (uint64, error) { return gobUvarint(r.byte) }

func (r *gobReader) int() (int64, error) {
	u, err := r.uint()
	return int64(u>>1) ^ -int64(u&1), err
}

// gobUvarint reads a number below 128 as it is, others as the negated count of
// the bytes that follow, the highest first.
func gobUvarint(next func() (byte, error)) (uint64, error) {
	b, err := next()
	if err != nil || b < 128 {
		return uint64(b), err
	}
	n := -int(int8(b))
	if n > 8 {
		return 0, errGob
	}
	var v uint64
	for range n {
		if b, err = next(); err != nil {
			return 0, err
		}
		v = v<<8 | uint64(b)
	}
	return v, nil
}

func (r *gobReader) value(id int64, depth int) (any, error) {
	switch id {
	case gobBool, gobUint, gobFloat:
		return r.uint()
	case gobInt:
		return r.int()
	case gobBytes, gobString:
		b, err := r.bytes()
		if id == gobString {
			return string(b), err
		}
		return b, err
	}
	t, ok := r.types[id]
	if !ok || depth == maxGobDepth {
		return nil, fmt.Errorf("%w: type %d", errGob, id)
	}
	if t.elem != 0 {
		return r.list(t.elem, depth+1)
	}
	return r.object(t.fields, depth+1)
}

func (r *gobReader) bytes() ([]byte, error) {
	n, err := r.uint()
	if err != nil || n > uint64(len(r.buf)) {
		return nil, errGob
	}
	b := r.buf[:n:n]
	r.buf = r.buf[n:]
	return b, nil
}

func (r *gobReader) list(elem int64, depth int) (any, error) {
	n, err := r.uint()
	if err != nil || n > uint64(len(r.buf)) {
		return nil, errGob
	}
	var all []any
	for range n {
		v, err := r.value(elem, depth)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// object reads a struct: each field that is there follows its distance from the
// one before it; a zero ends it.
func (r *gobReader) object(fields []gobMember, depth int) (any, error) {
	all, at := map[string]any{}, -1
	for {
		delta, err := r.uint()
		if err != nil {
			return nil, err
		}
		if delta == 0 {
			return all, nil
		}
		if delta > uint64(len(fields)-1-at) {
			return nil, errGob
		}
		at += int(delta)
		if all[fields[at].name], err = r.value(fields[at].typ, depth); err != nil {
			return nil, err
		}
	}
}
