package journal

import (
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/netcleat/netcleat/pkg/fields"
	"github.com/netcleat/netcleat/pkg/jsontext"
	"github.com/netcleat/netcleat/pkg/netns"
)

// encode writes the record as encoding/json would.
func (r *Record) encode() []byte {
	return jsontext.Object(
		jsontext.Field{Key: "version", Value: jsontext.Int(r.Version)},
		jsontext.Field{Key: "network", Value: jsontext.String(r.Network)},
		jsontext.Field{Key: "containerID", Value: jsontext.String(r.ContainerID)},
		jsontext.Field{Key: "ifName", Value: jsontext.String(escape(r.IfName))},
		jsontext.Field{Key: "plugin", Value: jsontext.String(r.Plugin)},
		jsontext.Field{Key: "netns", Value: jsontext.String(escape(r.Netns))},
		jsontext.Field{Key: "netnsID", Value: encodeID(r.NetnsID)},
		jsontext.Field{Key: "hostID", Value: encodeID(r.HostID)},
		jsontext.Field{Key: "boot", Value: optionalUint(r.Boot)},
		jsontext.Field{Key: "created", Value: jsontext.String(r.Created.Format(time.RFC3339Nano))},
		jsontext.Field{Key: "args", Value: jsontext.Optional(escape(r.Args))},
		jsontext.Field{Key: "config", Value: jsontext.Value(r.Config)},
		jsontext.Field{Key: "links", Value: jsontext.OptionalArray(r.Links, Link.encode)},
		jsontext.Field{Key: "ips", Value: jsontext.OptionalArray(r.IPs, func(p netip.Prefix) jsontext.Value { return jsontext.String(p.String()) })},
		jsontext.Field{Key: "state", Value: jsontext.Value(r.State)},
	)
}

func encodeID(id netns.ID) jsontext.Value {
	return jsontext.Object(
		jsontext.Field{Key: "dev", Value: jsontext.Uint(id.Dev)},
		jsontext.Field{Key: "ino", Value: jsontext.Uint(id.Ino)},
		jsontext.Field{Key: "cookie", Value: jsontext.Uint(id.Cookie)},
	)
}

func (l Link) encode() jsontext.Value {
	return jsontext.Object(
		jsontext.Field{Key: "name", Value: jsontext.String(escape(l.Name))},
		jsontext.Field{Key: "index", Value: jsontext.OptionalInt(l.Index)},
		jsontext.Field{Key: "mac", Value: jsontext.Optional(l.MAC)},
		jsontext.Field{Key: "sandbox", Value: yes(l.Sandbox)},
		jsontext.Field{Key: "kind", Value: jsontext.Optional(l.Kind)},
		jsontext.Field{Key: "parent", Value: jsontext.OptionalInt(l.Parent)},
	)
}

// optionalUint leaves out 0.
func optionalUint(n uint64) jsontext.Value {
	if n == 0 {
		return nil
	}
	return jsontext.Uint(n)
}

// yes leaves out what is not so.
func yes(b bool) jsontext.Value { //nolint:revive // a value to write, not a switch
	if b {
		return jsontext.Value("true")
	}
	return nil
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
