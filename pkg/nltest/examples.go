package nltest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var jsonBlock = regexp.MustCompile("(?s)```json[^\n]*\n(.*?)```")

// Examples returns the configurations of the plugin that the documents have, from
// conflist-examples and from every README: where fuzzing starts. Each names its
// network. An IPAM plugin's are those of the plugins that ask it.
func Examples(t testing.TB, name string) (all []string) {
	t.Helper()
	root, err := Repository()
	must(t, err)
	paths, err := filepath.Glob(filepath.Join(root, "conflist-examples", "*"))
	must(t, err)
	readmes, err := filepath.Glob(filepath.Join(root, "plugins", "*", "README.md"))
	must(t, err)
	for _, path := range append(paths, readmes...) {
		b, err := os.ReadFile(path)
		must(t, err)
		texts := [][]byte{b}
		if filepath.Ext(path) == ".md" {
			texts = nil
			for _, m := range jsonBlock.FindAllSubmatch(b, -1) {
				texts = append(texts, m[1])
			}
		}
		for _, text := range texts {
			all = append(all, of(name, text)...)
		}
	}
	if len(all) == 0 && name != "loopback" {
		t.Errorf("no example of %s", name)
	}
	return all
}

// of returns the plugin's configurations in a list, or a configuration of its own.
func of(name string, text []byte) (all []string) {
	var list struct {
		CNIVersion string                       `json:"cniVersion"`
		Name       string                       `json:"name"`
		Plugins    []map[string]json.RawMessage `json:"plugins"`
	}
	var one map[string]json.RawMessage
	if json.Unmarshal(text, &list) != nil || json.Unmarshal(text, &one) != nil {
		return nil
	}
	if list.Plugins == nil {
		list.Plugins = []map[string]json.RawMessage{one}
	}
	for _, conf := range list.Plugins {
		var ipam struct{ Type string }
		_ = json.Unmarshal(conf["ipam"], &ipam) // there may be none
		if string(conf["type"]) != `"`+name+`"` && ipam.Type != name {
			continue
		}
		conf["name"], _ = json.Marshal(list.Name)
		conf["cniVersion"], _ = json.Marshal(list.CNIVersion)
		b, err := json.Marshal(conf)
		if err == nil {
			all = append(all, string(b))
		}
	}
	return all
}
