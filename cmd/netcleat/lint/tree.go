package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// document is a file that was read.
type document struct {
	file string
	text []byte
	root *value
}

// value is a JSON value with its place in the text.
type value struct {
	kind    byte // its first character: { [ " t f n or that of a number
	raw     json.RawMessage
	at      int
	members []member // of an object, in their order
	items   []*value // of an array
}

type member struct {
	key   string
	at    int
	value *value
}

// notJSON is an error with its place.
type notJSON struct {
	at  int
	err error
}

func (e *notJSON) Error() string { return e.err.Error() }
func (e *notJSON) Unwrap() error { return e.err }

// parse reads JSON.
func parse(text []byte) (*value, error) {
	var any json.RawMessage
	if err := json.Unmarshal(text, &any); err != nil {
		at := len(text)
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && syntax.Offset > 0 {
			at = int(syntax.Offset) - 1
		}
		if at >= len(text) || strings.Contains(err.Error(), "unexpected end") {
			at = len(bytes.TrimRight(text, " \t\r\n"))
		}
		return nil, &notJSON{at, err}
	}
	r := reader{text: text}
	return r.value(), nil
}

// reader takes text apart that is known to be JSON.
type reader struct {
	text []byte
	pos  int
}

// next skips blanks, commas and colons, and returns the character there.
func (r *reader) next() byte {
	for bytes.IndexByte([]byte(" \t\r\n,:"), r.text[r.pos]) >= 0 {
		r.pos++
	}
	return r.text[r.pos]
}

func (r *reader) value() *value {
	v := &value{kind: r.next()}
	v.at = r.pos
	switch v.kind {
	case '{':
		for r.pos++; r.next() != '}'; {
			m := member{at: r.pos}
			m.key = text(r.value().raw)
			m.value = r.value()
			v.members = append(v.members, m)
		}
		r.pos++
	case '[':
		for r.pos++; r.next() != ']'; {
			v.items = append(v.items, r.value())
		}
		r.pos++
	case '"':
		for r.pos++; r.text[r.pos] != '"'; r.pos++ {
			if r.text[r.pos] == '\\' {
				r.pos++
			}
		}
		r.pos++
	default:
		for r.pos < len(r.text) && bytes.IndexByte([]byte(" \t\r\n,:]}"), r.text[r.pos]) < 0 {
			r.pos++
		}
	}
	v.raw = r.text[v.at:r.pos]
	return v
}

// text returns a JSON string, or "" for anything else.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// get returns the value of a key as the plugins read it: the last that is spelt
// exactly so, or else one in any case. nil is none; all methods take it.
func (v *value) get(key string) (found *value) {
	if v == nil {
		return nil
	}
	for _, m := range v.members {
		if strings.EqualFold(m.key, key) && found == nil || m.key == key {
			found = m.value
		}
	}
	return found
}

func (v *value) string(key string) string {
	if v = v.get(key); v == nil {
		return ""
	}
	return text(v.raw)
}

// isTrue reports whether the key says true.
func (v *value) isTrue(key string) bool {
	v = v.get(key)
	return v != nil && v.kind == 't'
}

// given reports whether the key has a value that says something.
func (v *value) given(key string) bool {
	v = v.get(key)
	return v != nil && v.kind != 'n'
}

// object returns an object's values by key, as encoding/json reads them.
func (v *value) object() map[string]json.RawMessage {
	m := map[string]json.RawMessage{}
	for _, e := range v.members {
		m[e.key] = e.value.raw
	}
	return m
}

// position is a place as editors count: from 1, in characters.
func (d *document) position(at int) (line, column int) {
	before := d.text[:min(at, len(d.text))]
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
}

// where names a place for other findings to refer to.
func (d *document) where(at int) string {
	line, _ := d.position(at)
	return fmt.Sprintf("%s:%d", d.file, line)
}
