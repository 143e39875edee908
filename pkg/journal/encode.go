package journal

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/netcleat/netcleat/pkg/fields"
)

// encode writes the record as encoding/json would, but raw JSON as it is.
func (r Record) encode() ([]byte, error) {
	r.IfName, r.Netns, r.Args = escape(r.IfName), escape(r.Netns), escape(r.Args)
	r.Links = slices.Clone(r.Links)
	for i := range r.Links {
		r.Links[i].Name = escape(r.Links[i].Name)
	}
	return fields.Text(r)
}

func decode(b []byte) (r Record, err error) {
	o, err := fields.Parse(b)
	if err != nil {
		return Record{}, err
	}
	err = o.Into(&r)
	for _, s := range []*string{&r.IfName, &r.Netns, &r.Args} {
		*s = unescape(*s)
	}
	for i := range r.Links {
		r.Links[i].Name = unescape(r.Links[i].Name)
	}
	return r, err
}

// escaped is the rune that stands for the byte 0 where a string is not UTF-8: JSON
// has no such bytes, and the kernel's names and paths may. It is of a plane that
// is nobody's.
const escaped = 0x10ff00

// escape writes bytes that are not UTF-8 as runes.
func escape(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			r = escaped + rune(s[0])
		}
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String()
}

// unescape takes escape back.
func unescape(s string) string {
	if !strings.ContainsFunc(s, isEscaped) {
		return s
	}
	var b []byte
	for _, r := range s {
		if isEscaped(r) {
			b = append(b, byte(r-escaped))
		} else {
			b = utf8.AppendRune(b, r)
		}
	}
	return string(b)
}

func isEscaped(r rune) bool { return r >= escaped+utf8.RuneSelf && r <= escaped+0xff }
