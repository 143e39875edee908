package schema

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// draft is the newest that all editors know.
const draft = "http://json-schema.org/draft-07/schema#"

// words are the keys that take one of some words. A test of cmd/netcleat/lint
// asks the plugins' parsers whether they are those.
var words = map[string][]string{
	"bridge.ipMasqBackend":     {"nftables", "iptables"},
	"ptp.ipMasqBackend":        {"nftables", "iptables"},
	"firewall.backend":         {"nftables", "iptables", "firewalld", ""},
	"firewall.ingressPolicy":   {"open", "same-bridge", "isolated", ""},
	"ipvlan.flag":              {"bridge", "private", "vepa", ""},
	"ipvlan.mode":              {"l2", "l3", "l3s", ""},
	"macvlan.mode":             {"bridge", "private", "vepa", "passthru", ""},
	"portmap.backend":          {"nftables", "iptables", ""},
	"portmap.hostPortConflict": {"error", "replace", ""},
}

// needed are the keys without which a plugin refuses its configuration.
var needed = map[string][]string{"vlan": {"master"}, "vrf": {"vrfname"}, "ptp": {"ipam"}, "dummy": {"ipam"}}

// The published files are what the code and the READMEs say now.
func TestFilesAreInStep(t *testing.T) {
	want := generate(t)
	for name, s := range want {
		text := marshal(t, s)
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(name+".json", text, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(text), string(got)); d != "" {
			t.Errorf("%s.json is out of step: make golden (-want +got):\n%s", name, d)
		}
	}
	files, err := filepath.Glob("*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if want[strings.TrimSuffix(f, ".json")] == nil {
			t.Errorf("%s is nobody's: remove it", f)
		}
	}
}

func marshal(t *testing.T, s *Schema) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// generate makes all schemas, by the names of their files.
func generate(t *testing.T) map[string]*Schema {
	t.Helper()
	said := readTables(t, "docs/schema/README.md")
	c := load(t)
	own, rooms := map[string]*Schema{}, map[string]string{}
	for _, p := range c.plugins(t) {
		own[p.name], rooms[p.name] = c.schema(t, p, said), p.room
	}
	describeAll(t, own, rooms)
	all := map[string]*Schema{List: list(said, own)}
	for name, s := range own {
		file := *s
		file.Schema = draft
		if s.Properties["ipam"] != nil {
			file.Definitions = sections(own)
		}
		all[name] = &file
	}
	return all
}

func (p plugin) ipam() bool { return strings.HasSuffix(p.room, "-ipam") }

// schema is the plugin's, not yet described.
func (c code) schema(t *testing.T, p plugin, said tables) *Schema {
	t.Helper()
	doc := &Schema{Type: "object", Properties: map[string]*Schema{}}
	if p.document != nil {
		doc = c.schemaOf(t, p.document)
	}
	title := "Configuration of the CNI plugin " + p.name
	if p.ipam() {
		s := doc.Properties["ipam"]
		s.Title = "The ipam section of a configuration with the CNI plugin " + p.name
		s.Properties["type"] = &Schema{Const: p.name}
		s.Required = []string{"type"}
		if p.common["DataDir"] {
			s.Properties["dataDir"] = &Schema{Type: "string"}
		}
		if r := s.Properties["ranges"]; r != nil {
			r.Items.Items.Properties["ipRange"] = &Schema{Type: "string", Description: said.of("key of every plugin").text("ranges[][].ipRange")}
		}
		s.Definitions = map[string]*Schema{}
		if r := doc.Properties["runtimeConfig"]; r != nil {
			s.Definitions["runtimeConfig"] = open(r, "")
		}
		allowExtensions(s)
		return s
	}
	s := &Schema{
		Title: title, Type: "object", Properties: doc.Properties, AdditionalProperties: false,
		Required: append([]string{"type"}, needed[p.name]...),
	}
	c.addCommon(t, s, p, said)
	for key, enum := range words {
		if plugin, name, _ := strings.Cut(key, "."); plugin == p.name {
			s.Properties[name].Enum = enum
		}
	}
	if sysctl := s.Properties["sysctl"]; sysctl != nil { // read in its order, which no type can say
		*sysctl = Schema{Type: "object", AdditionalProperties: &Schema{Type: "string"}}
	}
	allowExtensions(s)
	return s
}

// addCommon adds what plugins have in common.
func (c code) addCommon(t *testing.T, s *Schema, p plugin, said tables) {
	t.Helper()
	every := said.of("key of every plugin")
	conf := c.schemaOf(t, c.typeOf(confPath, "Conf"))
	for key, k := range conf.Properties {
		switch {
		case key == "ipam" && !p.common["IPAM"], key == "dns" && !p.common["DNS"]:
			continue
		case key == "ipam":
			k = &Schema{AllOf: []*Schema{{Ref: "#/definitions/ipam"}}}
		case key == "prevResult":
			k = &Schema{Type: "object"}
		case key == "type":
			k = &Schema{Const: p.name}
		}
		describe(k, key, every)
		s.Properties[key] = k
	}
	given := s.Properties["runtimeConfig"]
	s.Properties["runtimeConfig"] = open(given, every.text("runtimeConfig"))
	s.Properties["args"] = open(s.Properties["args"], every.text("args"))
	if cni := s.Properties["args"].Properties["cni"]; cni != nil {
		s.Properties["args"].Properties["cni"] = open(cni, "")
	}
	caps := &Schema{Type: "object", Description: every.text("capabilities"), AdditionalProperties: &Schema{Type: "boolean"}}
	if given != nil {
		caps.Properties = map[string]*Schema{}
		for key := range given.Properties {
			caps.Properties[key] = &Schema{Type: "boolean"}
		}
	}
	s.Properties["capabilities"] = caps
}

// open is an object that others may put keys into, too.
func open(s *Schema, description string) *Schema {
	if s == nil {
		s = &Schema{Type: "object"}
	}
	c := *s
	c.AdditionalProperties, c.Description = nil, description
	return &c
}

// allowExtensions lets keys through that programs tell each other: they have a
// domain or a path in front.
func allowExtensions(s *Schema) { s.PatternProperties = map[string]*Schema{"[./]": {}} }

// list is the schema of a list of plugins.
func list(said tables, own map[string]*Schema) *Schema {
	flag := &Schema{AnyOf: []*Schema{{Type: "boolean"}, {Enum: []string{"true", "false"}}}}
	s := &Schema{
		Schema: draft, Title: "A CNI network: a list of plugins", Type: "object",
		Required: []string{"name"}, AdditionalProperties: false,
		Properties: map[string]*Schema{
			"$schema":                {Type: "string"},
			"cniVersion":             {Type: "string"},
			"cniVersions":            {Type: "array", Items: &Schema{Type: "string"}},
			"name":                   {Type: "string"},
			"disableCheck":           clone(flag),
			"disableGC":              clone(flag),
			"loadOnlyInlinedPlugins": {Type: "boolean"},
			"plugins":                {Type: "array", Items: &Schema{Ref: "#/definitions/plugin"}},
			"args":                   {Type: "object"},
			"nerdctlID":              {Type: "string"},
			"nerdctlLabels":          {Type: "object", AdditionalProperties: &Schema{Type: "string"}},
		},
		Definitions: sections(own),
	}
	for key, p := range s.Properties {
		p.Description = said.of("key of a list").text(key)
	}
	allowExtensions(s)
	s.Definitions["plugin"] = byType(own, func(s *Schema) bool { return !section(s) })
	for name, p := range own {
		s.Definitions[name] = p
	}
	return s
}

func clone(s *Schema) *Schema {
	c := *s
	return &c
}

// section reports whether the schema is one of an ipam section.
func section(s *Schema) bool { return s.Definitions != nil }

// sections are the definitions that an ipam section needs.
func sections(own map[string]*Schema) map[string]*Schema {
	d := map[string]*Schema{"ipam": byType(own, section)}
	d["ipam"].Required = nil // {} is none, as is {"type": ""}
	d["ipam"].Description = "where addresses come from"
	for name, s := range own {
		if section(s) {
			d[name] = s
		}
	}
	return d
}

// byType is the schema of what has a type, one of ours or another's.
func byType(own map[string]*Schema, which func(*Schema) bool) *Schema {
	s := &Schema{Type: "object", Required: []string{"type"}, Properties: map[string]*Schema{"type": {Type: "string"}}}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if !which(own[name]) {
			continue
		}
		s.Properties["type"].Examples = append(s.Properties["type"].Examples, name)
		s.AllOf = append(s.AllOf, &Schema{
			If:   &Schema{Properties: map[string]*Schema{"type": {Const: name}}, Required: []string{"type"}},
			Then: &Schema{Ref: "#/definitions/" + name},
		})
	}
	return s
}
