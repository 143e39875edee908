// Package lint checks network configurations with the plugins' own parsers,
// before a runtime uses them. It looks at no network.
package lint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Plugins says where the plugins are.
type Plugins struct {
	Binary string // the plugin binary, which is run under the name of each; "" for the installed ones
	Path   string // where plugins are installed
}

// list is what a list of plugins, or one plugin's configuration, has.
type list struct {
	CNIVersion string                       `json:"cniVersion"`
	Name       string                       `json:"name"`
	Type       string                       `json:"type"`
	Plugins    []map[string]json.RawMessage `json:"plugins"`
}

// versions are those of the specification.
var versions = []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// File returns what is wrong with a configuration, each as "file: …", with line
// and column where it is no JSON.
func File(ctx context.Context, p Plugins, path string) (found []string) {
	say := func(format string, args ...any) { found = append(found, path+": "+fmt.Sprintf(format, args...)) }
	b, err := os.ReadFile(path)
	if err != nil {
		return []string{err.Error()}
	}
	var l list
	if err := json.Unmarshal(b, &l); err != nil {
		return []string{path + position(b, err) + ": " + err.Error()}
	}
	if l.Type != "" {
		var one map[string]json.RawMessage
		_ = json.Unmarshal(b, &one) // it just was an object
		l.Plugins = []map[string]json.RawMessage{one}
	}
	if l.Name == "" {
		say("name is missing")
	}
	switch {
	case l.CNIVersion == "":
		say("cniVersion is missing")
	case !slices.Contains(versions, l.CNIVersion):
		say("cniVersion %q: want one of %q", l.CNIVersion, versions)
	}
	if len(l.Plugins) == 0 {
		say("plugins is missing")
	}
	for i, conf := range l.Plugins {
		for _, name := range names(conf) {
			if msg := p.check(ctx, name, l, conf); msg != "" {
				say("plugins[%d] %s: %s", i, name, msg)
			}
		}
	}
	return found
}

// position says where in the text an error is: ":3:14".
func position(b []byte, err error) string {
	offset := int64(-1)
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &typ):
		offset = typ.Offset
	}
	if offset < 0 || offset > int64(len(b)) {
		return ""
	}
	before := b[:offset]
	return fmt.Sprintf(":%d:%d", bytes.Count(before, []byte("\n"))+1, len(before)-bytes.LastIndexByte(before, '\n')-1)
}

// names returns the plugin's and that of its IPAM plugin.
func names(conf map[string]json.RawMessage) []string {
	var name string
	var ipam struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(conf["type"], &name) != nil {
		name = ""
	}
	all := []string{name}
	if json.Unmarshal(conf["ipam"], &ipam) == nil && ipam.Type != "" {
		all = append(all, ipam.Type)
	}
	return all
}

// The result and the sandbox of an attachment that does not exist.
const (
	nowhere    = "/nonexistent"
	prevResult = `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/nonexistent"}],
		"ips":[{"address":"192.0.2.2/24","interface":0}]}`
)

// bad are the codes of a configuration that cannot work: an unsupported field,
// no JSON, an invalid value.
var bad = []uint{2, 6, 7}

// check runs the plugin's CHECK of an attachment that does not exist: it changes
// nothing, and refuses a bad configuration before it looks at anything. It
// returns what is wrong, or "".
func (p Plugins) check(ctx context.Context, name string, l list, conf map[string]json.RawMessage) string {
	if name == "" {
		return "type is missing"
	}
	binary, err := p.find(name)
	if err != nil {
		return err.Error()
	}
	stdin := map[string]any{"cniVersion": "1.0.0", "name": l.Name, "prevResult": json.RawMessage(prevResult)}
	for k, v := range conf {
		if _, set := stdin[k]; !set {
			stdin[k] = v
		}
	}
	in, err := json.Marshal(stdin)
	if err != nil {
		return err.Error()
	}
	cmd := exec.CommandContext(ctx, binary)
	cmd.Args = []string{name}
	cmd.Stdin = bytes.NewReader(in)
	cmd.Env = []string{"CNI_COMMAND=CHECK", "CNI_CONTAINERID=lint", "CNI_IFNAME=eth0", "CNI_NETNS=" + nowhere, "CNI_PATH=" + p.Path}
	out, err := cmd.Output()
	var e struct {
		Code         uint
		Msg, Details string
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &exit):
		return err.Error()
	case json.Unmarshal(out, &e) == nil && slices.Contains(bad, e.Code):
		return e.Msg
	}
	return ""
}

// find returns the file to run: the plugin binary, where it has the plugin, or
// what is installed.
func (p Plugins) find(name string) (string, error) {
	if p.Binary != "" {
		cmd := exec.Command(p.Binary)
		cmd.Args, cmd.Env = []string{name}, []string{} // without a verb a plugin says what it is
		if cmd.Run() == nil {
			return p.Binary, nil
		}
	}
	for _, dir := range filepath.SplitList(p.Path) {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("no such plugin in %s: %w", p.Path, fs.ErrNotExist)
}
