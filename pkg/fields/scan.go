package fields

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// What is here reads JSON that is known to be valid, from its first byte on.

// each calls fn with every value of an array, or every key and value of an object.
func each(b []byte, fn func(key, value []byte) error) error {
	object := b[0] == '{'
	for b = trim(b[1:]); b[0] != '}' && b[0] != ']'; b = trim(b) {
		if b[0] == ',' {
			b = trim(b[1:])
		}
		var key, value []byte
		if object {
			key, b = cut(b)
			b = trim(b)[1:] // the colon
		}
		value, b = cut(trim(b))
		if err := fn(key, value); err != nil {
			return err
		}
	}
	return nil
}

// cut splits b behind its first value.
func cut(b []byte) (value, rest []byte) {
	depth, i := 0, 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i += stringLen(b[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return b[:i:i], b[i:]
			}
		}
		if depth < 0 {
			return b[:i:i], b[i:] // a number before the end of its object
		}
		i++
	}
	return b[:i:i], b[i:]
}

// stringLen is how long the string that b begins with is, with its quotes.
func stringLen(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

func trim(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }

// plain returns the string that raw stands for, where it is one that needs no
// decoding.
func plain(raw []byte) (s string, ok bool) {
	if raw[0] != '"' || bytes.IndexByte(raw, '\\') >= 0 || !utf8.Valid(raw) {
		return "", false
	}
	return string(raw[1 : len(raw)-1]), true
}

func unquote(raw []byte) (s string, err error) {
	if s, ok := plain(raw); ok {
		return s, nil
	}
	return s, json.Unmarshal(raw, &s)
}
