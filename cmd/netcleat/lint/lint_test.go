package lint

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
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/netcleat/netcleat/docs/schema"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Nothing is an error in lists that work as projects ship them.
func TestShippedListsHaveNoErrors(t *testing.T) {
	a, err := txtar.ParseFile("testdata/shipped.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files {
		if f.Name == "want" {
			continue
		}
		path := write(t, filepath.Join(t.TempDir(), f.Name), f.Data)
		for _, found := range Check(path) {
			if found.Level == Error {
				t.Errorf("%s: %s", f.Name, found.Message)
			}
		}
	}
}

// Each archive is a directory of configurations, and in the file want what is
// found in them.
func TestFindings(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) < 8 {
		t.Fatal(err, archives)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { compare(t, path) })
	}
}

func compare(t *testing.T, path string) {
	t.Helper()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var want *txtar.File
	for i, f := range a.Files {
		if f.Name == "want" {
			want = &a.Files[i]
			continue
		}
		write(t, filepath.Join(dir, f.Name), f.Data)
	}
	var got bytes.Buffer
	if err := Print(&got, Check(dir), "text"); err != nil {
		t.Fatal(err)
	}
	if want == nil {
		t.Fatal("no file want")
	}
	text := strings.ReplaceAll(got.String(), dir+"/", "")
	if os.Getenv("UPDATE") != "" {
		want.Data = []byte(text)
		if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(string(want.Data), text); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Nothing is wrong with the examples, nor with what runtimes write, each on its
// own; plugins of others are noted.
func TestNothingIsFound(t *testing.T) {
	examples, err := filepath.Glob("../../../conflist-examples/*.conflist")
	if err != nil {
		t.Fatal(err)
	}
	written, err := txtar.ParseFile("../../../docs/schema/testdata/lists.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(examples) < 10 || len(written.Files) < 8 {
		t.Fatalf("found %d examples, and %d lists of runtimes", len(examples), len(written.Files))
	}
	dir := t.TempDir()
	for _, f := range written.Files {
		examples = append(examples, write(t, filepath.Join(dir, f.Name), f.Data))
	}
	for _, path := range examples {
		for _, f := range Check(path) {
			if f.Level != Note {
				t.Errorf("%s: %s: %s", f.Where(), f.Level, f.Message)
			}
		}
	}
}

// There is a parser for each plugin that has a schema, and no other.
func TestPluginsAreThoseOfTheSchemas(t *testing.T) {
	if d := cmp.Diff(schema.Names(), slices.Sorted(maps.Keys(plugins))); d != "" {
		t.Errorf("-schemas +parsers:\n%s", d)
	}
}

// asked is the parser's answer to a configuration with only that key, in addition
// to those that the plugin needs.
func asked(t *testing.T, name string, keys map[string]any) error {
	t.Helper()
	conf := map[string]any{"type": name, "name": "n", "cniVersion": "1.1.0"}
	maps.Copy(conf, keys)
	c := &plugin.Call{Verb: plugin.Add, IfName: "eth0", Stdin: mustJSON(conf)}
	if ipam, ok := keys["ipam"].(map[string]any); ok {
		c.Conf.IPAM.Type = ipam["type"].(string)
	}
	return plugins[name].About().Parse(c)
}

// needed is a value for each key that a plugin needs.
var needed = map[string]any{"master": "eth0", "vrfname": "blue", "ipam": map[string]any{"type": "static"}, "device": "eth0"}

// The words that a schema allows are those that the plugin takes, and what it
// requires the plugin cannot do without.
func TestSchemasSayWhatParsersSay(t *testing.T) {
	enums := 0
	for _, name := range schema.Names() {
		s, err := schema.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		if isIPAM(name) {
			continue
		}
		conf := map[string]any{}
		for _, key := range s.Required {
			if key != "type" {
				conf[key] = needed[key]
			}
		}
		if name == "host-device" {
			conf["device"] = "eth0"
		}
		if err := asked(t, name, conf); err != nil {
			t.Errorf("%s with what its schema requires: %v", name, err)
		}
		for _, key := range s.Required {
			less := maps.Clone(conf)
			delete(less, key)
			if key != "type" && asked(t, name, less) == nil {
				t.Errorf("%s does not need %s", name, key)
			}
		}
		for key, p := range s.Properties {
			if p.Enum == nil {
				continue
			}
			enums++
			for _, word := range append(p.Enum, "no-such-word") {
				more := maps.Clone(conf)
				more[key] = word
				if err := asked(t, name, more); (err == nil) != slices.Contains(p.Enum, word) {
					t.Errorf("%s: %s %q: %v", name, key, word, err)
				}
			}
		}
	}
	if enums < 9 {
		t.Errorf("only %d keys have words", enums)
	}
}

func TestPrint(t *testing.T) {
	found := []Finding{{"a.conflist", 2, 3, Warning, "odd"}, {File: "b", Level: Error, Message: "gone"}}
	for format, want := range map[string]string{
		"text": "a.conflist:2:3: warning: odd\nb: error: gone\n",
		"json": `[
  {
    "file": "a.conflist",
    "line": 2,
    "column": 3,
    "level": "warning",
    "message": "odd"
  },
  {
    "file": "b",
    "line": 0,
    "column": 0,
    "level": "error",
    "message": "gone"
  }
]
`,
	} {
		var got bytes.Buffer
		if err := Print(&got, found, format); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got.String()); d != "" {
			t.Errorf("%s: -want +got:\n%s", format, d)
		}
	}
	var none bytes.Buffer
	if err := Print(&none, nil, "json"); err != nil || none.String() != "[]\n" {
		t.Errorf("%v %q", err, &none)
	}
	if err := Print(&none, nil, "xml"); err == nil {
		t.Error("xml is printed")
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	found := Check(filepath.Join(dir, "none"), dir)
	want := []Finding{
		{File: filepath.Join(dir, "none"), Level: Error, Message: "no such file or directory"},
		{File: dir, Level: Warning, Message: "no file that runtimes read: they are called *.conflist, *.conf or *.json"},
	}
	if d := cmp.Diff(want, found); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// A file that is named twice is checked once, and not compared with itself.
func TestFileNamedTwice(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "a.conflist"), []byte(`{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"bridge"}]}`))
	if found := Check(path, path, filepath.Dir(path)); len(found) > 0 {
		t.Errorf("found %v", found)
	}
}

// Networks are compared within their directory only.
func TestDirectoriesAreApart(t *testing.T) {
	dir, conf := t.TempDir(), []byte(`{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"bridge","isGateway":true,"ipam":{"type":"host-local","subnet":"10.0.0.0/24"}}]}`)
	a, b := write(t, filepath.Join(dir, "a/x.conflist"), conf), write(t, filepath.Join(dir, "b/x.conflist"), conf)
	if found := Check(a, b); len(found) > 0 {
		t.Errorf("found %v", found)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"bridge", "isGateway", "isDefaultGateway", "mtu", "ipMasq", "ipMasqBackend", "vlan"}
	for word, want := range map[string]string{
		"isGatway": "isGateway", "isgateway": "isGateway", "brdige": "bridge", "mut": "mtu", "mt": "mtu", "ipmask": "ipMasq",
		"masquerade": "", "": "", "x": "", "vlans": "vlan", "defaultGateway": "isDefaultGateway",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

// checkPlaces checks that each key and value is where it is said to be.
func checkPlaces(t *testing.T, whole []byte, v *value) {
	t.Helper()
	if !bytes.HasPrefix(whole[v.at:], v.raw) || !json.Valid(v.raw) || v.raw[0] != v.kind {
		t.Errorf("%d: %q", v.at, v.raw)
	}
	for _, e := range v.items {
		checkPlaces(t, whole, e)
	}
	for _, m := range v.members {
		if end := bytes.IndexByte(whole[m.at:m.value.at], ':'); whole[m.at] != '"' || end < 0 {
			t.Errorf("key %q: not at %d", m.key, m.at)
		}
		checkPlaces(t, whole, m.value)
	}
}

// Whatever is in a file, it is JSON or not, and nothing else happens.
func FuzzDocument(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `{"plugins":[null,{}]}`, `{"a":"\"","b":[1,-2.5e3,true,null]} `, `{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"::/126"}]]}}`,
		`{"name":"n","plugins":[{"type":"portmap","capabilities":{"portMapping":true}},{"type":"static","ipam":[]}]}`,
		`{"name":"n","plugins":[{"type":"ptp","ipam":{"type":"host-local","subnet":"10.0.0.0/8","gateway":"::1","rangeEnd":"9.0.0.1"}}]}`,
	} {
		f.Add([]byte(seed))
	}
	schemas := newLinter().schemas
	f.Fuzz(func(t *testing.T, text []byte) {
		l := &linter{order: map[string]int{}, schemas: schemas}
		d := l.document("f.conflist", text)
		if (d == nil) != (len(l.found) > 0) || d == nil && json.Valid(text) && bytes.TrimSpace(text)[0] == '{' {
			t.Errorf("%v %v", d, l.found)
		}
		if d == nil {
			return
		}
		checkPlaces(t, text, d.root)
		l.directory([]*list{l.list(d)})
		for _, found := range l.found {
			if lines := bytes.Count(text, []byte("\n")) + 1; found.Line < 1 || found.Line > lines || found.Column < 1 {
				t.Errorf("%v: the text has %d lines", found, lines)
			}
		}
	})
}

// All values of a plugin that have another type than they must are told at once.
func TestEveryType(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.conflist")
	text := `{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge","mtu":"1500","isGateway":"yes","vlan":true}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range Check(file) {
		if f.Level == Error {
			got = append(got, f.Message)
		}
	}
	if all := strings.Join(got, "\n"); len(got) != 3 || !strings.Contains(all, "mtu") || !strings.Contains(all, "isGateway") || !strings.Contains(all, "vlan") {
		t.Errorf("want three errors of mtu, isGateway and vlan, got\n%s", all)
	}
}
