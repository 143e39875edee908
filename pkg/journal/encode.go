package journal

import (
	"net/netip"
	"time"

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
		jsontext.Field{Key: "ifName", Value: jsontext.String(r.IfName)},
		jsontext.Field{Key: "plugin", Value: jsontext.String(r.Plugin)},
		jsontext.Field{Key: "netns", Value: jsontext.String(r.Netns)},
		jsontext.Field{Key: "netnsID", Value: encodeID(r.NetnsID)},
		jsontext.Field{Key: "hostID", Value: encodeID(r.HostID)},
		jsontext.Field{Key: "boot", Value: optionalUint(r.Boot)},
		jsontext.Field{Key: "created", Value: jsontext.String(r.Created.Format(time.RFC3339Nano))},
		jsontext.Field{Key: "args", Value: jsontext.Optional(r.Args)},
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
		jsontext.Field{Key: "name", Value: jsontext.String(l.Name)},
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
	return r, o.Into(&r)
}
