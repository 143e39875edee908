package plugin

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/fields"
)

// The bounds on what a record keeps of what a call was given, in bytes: records
// are in memory, one for each plugin and attachment.
const (
	maxKeptConf = 16 << 10
	maxKeptArgs = 4 << 10
)

// kept is what a record keeps of a configuration. Of one that is too large that is
// what the plugin knows, the small values first, and of the rest what there is
// room for.
func kept[C any](conf json.RawMessage) json.RawMessage {
	if len(conf) <= maxKeptConf {
		return conf
	}
	o, err := fields.Parse(conf)
	if err != nil {
		return nil
	}
	if len(o["ipam"]) > maxKeptConf/2 {
		o["ipam"] = essential(o["ipam"])
	}
	known := map[string]bool{"ipam": true}
	for _, t := range []reflect.Type{reflect.TypeFor[C](), reflect.TypeFor[Conf]()} {
		names(t, known)
	}
	rank := func(key string) int {
		if known[key] {
			return 0
		}
		return 1
	}
	keys := make([]string, 0, len(o))
	for key := range o {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(len(o[a]), len(o[b])), cmp.Compare(a, b))
	})
	room := maxKeptConf
	some := fields.Object{}
	for _, key := range keys {
		const around = len(`"":,`)
		if room -= len(key) + len(o[key]) + around; room < 0 {
			break
		}
		some[key] = o[key]
	}
	return text(some)
}

// essential is what every IPAM plugin of this suite removes an address by.
func essential(ipam json.RawMessage) json.RawMessage {
	o, err := fields.Parse(ipam)
	if err != nil {
		return nil
	}
	some := fields.Object{}
	for _, key := range []string{"type", "dataDir", "daemonSocketPath"} {
		if v, ok := o[key]; ok && len(v) < maxKeptArgs {
			some[key] = v
		}
	}
	return text(some)
}

// names adds the keys of a configuration's type.
func names(t reflect.Type, known map[string]bool) {
	if t.Kind() != reflect.Struct {
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name != "" && name != "-":
			known[name] = true
		case f.Anonymous:
			names(f.Type, known)
		}
	}
}

// bounded is CNI_ARGS with as many pairs as a record has room for.
func bounded(args string) string {
	if len(args) <= maxKeptArgs {
		return args
	}
	return args[:max(0, strings.LastIndexByte(args[:maxKeptArgs], ';'))]
}

// asJSON is a name as it comes back from JSON, which has no bytes that are not
// UTF-8.
func asJSON(name string) string { return string([]rune(name)) }
