package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// compile returns a published schema, ready to judge.
func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	text, err := Text(name)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(name, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// judge asks the schema for the configuration: that of a list or of a plugin.
func judge(t *testing.T, text string) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	name := List
	if m, ok := doc.(map[string]any); ok && m["plugins"] == nil {
		name = fmt.Sprint(m["type"])
	}
	return compile(t, name).Validate(doc)
}

var jsonBlock = regexp.MustCompile("(?s)```json\n(.*?)```")

// What users copy, and what runtimes write, is right.
func TestAccepted(t *testing.T) {
	files, err := filepath.Glob("../../conflist-examples/*.conflist")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, f := range files {
		texts[f] = read(t, f)
	}
	readmes, err := filepath.Glob("../../plugins/*/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(readmes, "../../README.md") {
		for i, m := range jsonBlock.FindAllStringSubmatch(read(t, f), -1) {
			texts[fmt.Sprintf("%s: JSON %d", f, i+1)] = m[1]
		}
	}
	written, err := txtar.ParseFile("testdata/lists.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range written.Files {
		texts[f.Name] = string(f.Data)
	}
	if len(files) < 10 || len(readmes) < 18 || len(written.Files) < 8 {
		t.Fatalf("found %d examples, %d READMEs, %d lists of runtimes", len(files), len(readmes), len(written.Files))
	}
	for where, text := range texts {
		if err := judge(t, text); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What is misspelt, or of another type, is not.
func TestRefused(t *testing.T) {
	for _, text := range []string{
		`{"cniVersion":"1.0.0","plugins":[]}`,
		`{"name":"n","plugins":[],"plugin":[]}`,
		`{"name":"n","plugins":[{"bridge":"b"}]}`,
		`{"name":"n","plugins":[{"type":"bridge","isgateway":true}]}`,
		`{"name":"n","plugins":[{"type":"bridge","isGatway":true}]}`,
		`{"name":"n","plugins":[{"type":"bridge","mtu":"1500"}]}`,
		`{"name":"n","plugins":[{"type":"bridge","ipMasqBackend":"pf"}]}`,
		`{"name":"n","plugins":[{"type":"bridge","vlanTrunk":[{"minId":1}]}]}`,
		`{"name":"n","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[{"subnet":"10.0.0.0/24"}]}}]}`,
		`{"name":"n","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnett":"10.0.0.0/24"}]]}}]}`,
		`{"name":"n","plugins":[{"type":"bridge","ipam":{"type":"static","addresses":[{"adddress":"10.0.0.2/24"}]}}]}`,
		`{"name":"n","plugins":[{"type":"bridge","ipam":{"type":"host-local","routes":[{"dest":"0.0.0.0/0"}]}}]}`,
		`{"name":"n","plugins":[{"type":"portmap","capabilities":{"portMappings":"yes"}}]}`,
		`{"name":"n","plugins":[{"type":"portmap","ipam":{}}]}`,
		`{"name":"n","plugins":[{"type":"tuning","sysctl":{"net.core.somaxconn":500}}]}`,
		`{"name":"n","plugins":[{"type":"vlan"}]}`,
		`{"type":"macvlan","master":1}`,
		`{"type":"ipvlan","mode":"l4"}`,
		`{"type":"dhcp","priority":"1"}`,
	} {
		if judge(t, text) == nil {
			t.Errorf("accepted: %s", text)
		}
	}
}

// Any key of any schema with a letter more is refused: no object is open that
// should not be.
func TestMisspeltKeysAreRefused(t *testing.T) {
	for _, name := range append(Names(), List) {
		s, err := Read(name)
		if err != nil {
			t.Fatal(err)
		}
		for key := range s.Properties {
			doc := map[string]any{key + "x": true, "type": name}
			for _, k := range s.Required {
				doc[k] = "x"
			}
			if name == List {
				delete(doc, "type")
			}
			if err := compile(t, name).Validate(doc); err == nil || !strings.Contains(err.Error(), key+"x") {
				t.Errorf("%s: %sx: %v", name, key, err)
			}
		}
	}
}

func TestTextOfUnknownPlugin(t *testing.T) {
	_, err := Read("brigde")
	if err == nil || !strings.Contains(err.Error(), "there are: bandwidth, bridge, ") {
		t.Error(err)
	}
	b, err := Text("bridge")
	if err != nil || !json.Valid(b) {
		t.Error(err)
	}
}
