package lint

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/suite"
	"github.com/netcleat/netcleat/docs/schema"
	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/fields"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

// plugins are ours, by name.
var plugins = suite.Plugins()

const loopbackType = "loopback"

// is reports whether a plugin is ours and has the role.
func is(typ string, role plugin.Role) bool {
	p := plugins[typ]
	return p != nil && p.About().Role == role
}

func isIPAM(typ string) bool { return is(typ, plugin.IPAM) }

// ipams are the names of ours that hand out addresses.
func ipams() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(plugins)), func(name string) bool { return !isIPAM(name) })
}

// isPlugin reports whether a plugin is ours and may stand in a list.
func isPlugin(typ string) bool { return plugins[typ] != nil && !isIPAM(typ) }

// plugin checks one plugin of a list on its own.
func (l *linter) plugin(n *list, e *entry) {
	typ := e.conf.get("type")
	switch {
	case typ == nil:
		l.say(Error, e.document, e.conf.at, "type is missing: the plugin's name")
		return
	case typ.kind != '"' || e.typ == "" || strings.Contains(e.typ, "/"):
		l.say(Error, e.document, typ.at, "type %s: want the plugin's name", typ.raw)
		return
	}
	ours := isPlugin(e.typ)
	if ours {
		l.keys(e.document, e.conf, l.properties(e.typ))
		l.refusal(n, e, question{e.typ, e.conf})
	} else if isIPAM(e.typ) {
		l.say(Error, e.document, typ.at, `plugin %q: hands out addresses: it goes into "ipam" of the plugin that makes the interface`, e.typ)
	} else {
		l.say(Note, e.document, typ.at, "plugin %q: not one of ours, and not checked%s", e.typ, meant(e.typ, schema.Names()))
	}
	if !ours || l.properties(e.typ).Properties["ipam"] != nil {
		l.ipam(n, e)
	}
}

func meant(word string, names []string) string {
	if name := nearest(word, names); name != "" {
		return `; did you mean "` + name + `"?`
	}
	return ""
}

// ipam checks the ipam section.
func (l *linter) ipam(n *list, e *entry) {
	given := e.conf.get("ipam")
	if given != nil && given.kind != '{' && given.kind != 'n' {
		return // of which the plugin's parser speaks
	}
	switch {
	case e.ipam == nil:
	case e.ipamType == "" && len(e.ipam.members) > 1, e.ipamType == "" && len(e.ipam.members) == 1 && !e.ipam.has("type"):
		l.say(Warning, e.document, e.ipam.at, "ipam: no type: there will be no addresses, whatever else is said here")
	case e.ipamType == "":
	case isIPAM(e.ipamType):
		l.delegated(n, e)
	case isPlugin(e.ipamType):
		l.say(Error, e.document, e.ipam.get("type").at, "ipam %q: hands out no addresses; want host-local, static, dhcp or another's", e.ipamType)
	default:
		l.say(Note, e.document, e.ipam.get("type").at, "ipam %q: not one of ours, and not checked%s", e.ipamType, meant(e.ipamType, ipams()))
	}
}

// delegated checks what one of our IPAM plugins is told. Plugins of others fill in
// or change it before they call it: Canal's list says "usePodCidr" for a subnet,
// Antrea's says none. So with them what it would refuse is no error.
func (l *linter) delegated(n *list, e *entry) {
	if isPlugin(e.typ) {
		l.keys(e.document, e.ipam, l.properties(e.ipamType))
		l.refusal(n, e, question{e.ipamType, e.ipam})
		return
	}
	before := len(l.found)
	l.refusal(n, e, question{e.ipamType, e.ipam})
	for i := range l.found[before:] {
		f := &l.found[before+i]
		f.Level = Note
		f.Message += fmt.Sprintf(" (unless plugin %q changes it before)", e.typ)
	}
}

// question is what to ask of a parser.
type question struct {
	name string
	conf *value // what its words are about
}

// refusal says why the plugin would refuse its configuration, if it would.
func (l *linter) refusal(n *list, e *entry, q question) {
	about := plugins[q.name].About()
	if !semver.AtLeast(n.version, about.Since) {
		l.say(Error, e.document, q.conf.at, "%s: speaks cniVersion %s and later, and the list's is %s", q.name, about.Since, n.version)
	}
	conf := e.conf.object()
	conf["name"], conf["cniVersion"] = quote(n.name), quote(n.version)
	if !isName(n.name) {
		conf["name"] = quote("lint") // the name has had its finding
	}
	if given := promised(e); len(given) > 0 {
		conf["runtimeConfig"] = mustJSON(given)
	}
	err := parsed(about, conf)
	for err != nil {
		l.say(Error, e.document, place(q.conf, err.Error()), "%s: %s", q.name, reason(err))
		// A value of another type hides what is wrong with the rest.
		var typ *json.UnmarshalTypeError
		if !errors.As(err, &typ) {
			return
		}
		key := keyOf(conf, err, typ)
		if key == "" {
			return
		}
		delete(conf, key)
		if err = parsed(about, conf); !errors.As(err, &typ) {
			return // without the key it may refuse what it would not with it
		}
	}
}

// keyOf returns the key of a configuration that an error is about, or "".
func keyOf(conf map[string]json.RawMessage, err error, typ *json.UnmarshalTypeError) string {
	before, _, _ := strings.Cut(err.Error(), ": json: ")
	for _, word := range append(strings.Split(before, ": "), typ.Field) {
		key := strings.FieldsFunc(word+".", func(r rune) bool { return r == '.' || r == '[' })
		if len(key) > 0 && conf[key[0]] != nil && key[0] != "name" && key[0] != "cniVersion" {
			return key[0]
		}
	}
	return ""
}

// parsed has a plugin read a configuration.
func parsed(about plugin.About, conf map[string]json.RawMessage) error {
	c := &plugin.Call{Verb: plugin.Add, IfName: "eth0", Stdin: mustJSON(conf)}
	o, err := fields.Parse(c.Stdin)
	if err == nil {
		err = o.Into(&c.Conf)
	}
	if err == nil {
		err = about.Parse(c)
	}
	return err
}

// kinds are types of Go as JSON calls them.
var kinds = map[reflect.Kind]string{
	reflect.Bool: "true or false", reflect.String: "a string", reflect.Slice: "an array", reflect.Struct: "an object", reflect.Map: "an object",
}

// reason is what a parser says, in the words of JSON.
func reason(err error) string {
	message := strings.TrimPrefix(err.Error(), "failed to load netconf: ")
	if d := cnierr.Details(err); d != "" {
		message += " (" + d + ")"
	}
	var typ *json.UnmarshalTypeError
	if !errors.As(err, &typ) {
		return message
	}
	article := "a "
	if strings.ContainsAny(typ.Value[:1], "ao") { // array, object
		article = "an "
	}
	want := cmp.Or(kinds[typ.Type.Kind()], "a whole number")
	return strings.Replace(message, typ.Error(), "is "+article+typ.Value+", want "+want, 1)
}

// promised is what a runtime gives to a plugin that cannot do without.
func promised(e *entry) map[string]any {
	given := map[string]any{}
	caps := e.conf.get("capabilities")
	if caps.isTrue("ipRanges") {
		given["ipRanges"] = [][]map[string]string{{{"subnet": "240.0.0.0/24"}}} // which nobody uses
	}
	if caps.isTrue("deviceID") {
		given["deviceID"] = "0000:00:00.0"
	}
	return given
}

func quote(s string) json.RawMessage { return mustJSON(s) }

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage("null") // raw values were read from JSON, and the others are strings
	}
	return b
}

var word = regexp.MustCompile(`[\w./:-]+`)

// place finds what a message is about: the longest string, else the longest key,
// that it repeats, or else the whole.
func place(v *value, message string) int {
	words := word.FindAllString(strings.ToLower(message), -1)
	for i := range words {
		words[i] = strings.TrimRight(words[i], ".:")
	}
	at, best := v.at, 0
	var visit func(v *value)
	visit = func(v *value) {
		for _, e := range v.items {
			visit(e)
		}
		if s := strings.ToLower(text(v.raw)); len(s) > 2 && 100*len(s) > best && slices.Contains(words, s) {
			at, best = v.at, 100*len(s)
		}
		for _, m := range v.members {
			if k := strings.ToLower(m.key); m.key != "type" && len(k) > best && slices.Contains(words, k) {
				at, best = m.value.at, len(k)
			}
			if m.key != "type" {
				visit(m.value)
			}
		}
	}
	visit(v)
	return at
}
