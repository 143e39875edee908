package house

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	jsonBlock = regexp.MustCompile("(?s)```json[^\n]*\n(.*?)```")
	mdLink    = regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)\s]*)?\)`)
	adrName   = regexp.MustCompile(`^docs/adr/(\d{4})-[a-z0-9-]+\.md$`)
	linter    = regexp.MustCompile(`(?m)^    - ([a-z]+)$`)
	tableRow  = regexp.MustCompile(`(?m)^\| (?:\[([a-z-]+)\]\(plugins/([a-z-]+)/README\.md\)|([a-z-]+)) \| (.*) \|$`)
)

// Every configuration in a README is one that its plugin reads: CHECK changes
// nothing, and refuses a bad configuration before it looks at anything.
func TestConfigurationsInReadmesAreRead(t *testing.T) {
	binary := build(t)
	names := pluginNames(t, binary)
	for _, f := range files(t, "README.md") {
		for i, block := range jsonBlock.FindAllStringSubmatch(read(t, f), -1) {
			var conf map[string]json.RawMessage
			if err := json.Unmarshal([]byte(block[1]), &conf); err != nil {
				t.Errorf("%s: JSON %d: %v", f, i+1, err)
				continue
			}
			for _, p := range plugins(t, conf) {
				if slices.Contains(names, text(p["type"])) {
					checkRead(t, binary, fmt.Sprintf("%s: JSON %d", f, i+1), p)
				}
			}
		}
	}
}

// plugins returns the plugins of a list, or the one that conf is.
func plugins(t *testing.T, conf map[string]json.RawMessage) []map[string]json.RawMessage {
	t.Helper()
	if conf["plugins"] == nil {
		return []map[string]json.RawMessage{conf}
	}
	var list []map[string]json.RawMessage
	if err := json.Unmarshal(conf["plugins"], &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

const prevResult = `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/nowhere"}],
	"ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1","interface":0}]}`

// checkRead runs CHECK. The container does not exist, so it fails; but not with
// one of the codes of a bad configuration.
func checkRead(t *testing.T, binary, where string, conf map[string]json.RawMessage) {
	t.Helper()
	conf["cniVersion"], conf["name"], conf["prevResult"] = json.RawMessage(`"1.0.0"`), json.RawMessage(`"readme"`), json.RawMessage(prevResult)
	stdin, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Args = []string{text(conf["type"])}
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = []string{"CNI_COMMAND=CHECK", "CNI_CONTAINERID=house", "CNI_IFNAME=eth0", "CNI_NETNS=/nowhere", "CNI_PATH=" + filepath.Dir(binary)}
	out, _ := cmd.Output() // the error object says more
	var e struct {
		Code int
		Msg  string
	}
	if err := json.Unmarshal(out, &e); len(out) > 0 && err != nil {
		t.Errorf("%s: %v: %s", where, err, out)
	}
	if e.Code == 6 || e.Code == 7 || e.Code == 2 {
		t.Errorf("%s: code %d: %s", where, e.Code, e.Msg)
	}
}

// What people copy starts with every runtime: containerd 1.6 and podman 4 refuse
// version 1.1.0, and do not know cniVersions.
func TestListsStartWithEveryRuntime(t *testing.T) {
	lists := 0
	check := func(where, conf string) {
		var l struct {
			CNIVersion  string
			CNIVersions []string
			Plugins     []json.RawMessage
		}
		if err := json.Unmarshal([]byte(conf), &l); err != nil || len(l.Plugins) == 0 {
			return // no list
		}
		lists++
		if l.CNIVersion != "1.0.0" || !slices.Equal(l.CNIVersions, []string{"1.0.0", "1.1.0"}) {
			t.Errorf(`%s: cniVersion %q, cniVersions %q; want "1.0.0" and "1.0.0", "1.1.0"`, where, l.CNIVersion, l.CNIVersions)
		}
	}
	for _, f := range files(t, ".conflist") {
		check(f, read(t, f))
	}
	indented := regexp.MustCompile("(?s) *```json\n(.*?)```")
	for _, f := range files(t, ".md") {
		for _, block := range indented.FindAllStringSubmatch(read(t, f), -1) {
			check(f, block[1])
		}
	}
	if lists < 20 {
		t.Errorf("found %d lists", lists)
	}
}

// Every example is in its README, and a story runs it.
func TestExamples(t *testing.T) {
	readme := read(t, "conflist-examples/README.md")
	var stories strings.Builder
	for _, f := range files(t, ".txtar") {
		stories.WriteString(read(t, f))
	}
	for _, f := range files(t, ".conflist") {
		name := filepath.Base(f)
		var conf struct {
			CNIVersion, Name string
			Plugins          []struct{ Type string }
		}
		if err := json.Unmarshal([]byte(read(t, f)), &conf); err != nil {
			t.Errorf("%s: %v", f, err)
		}
		if conf.CNIVersion == "" || conf.Name == "" || len(conf.Plugins) == 0 {
			t.Errorf("%s: cniVersion, name or plugins is missing", f)
		}
		if !strings.Contains(readme, "| ["+name+"]("+name+") | ") {
			t.Errorf("%s: no line in conflist-examples/README.md", f)
		}
		if !strings.Contains(stories.String(), "network "+name+"\n") {
			t.Errorf("%s: no story of test/e2e runs it", f)
		}
	}
}

// The README's table says which plugins there are.
func TestReadmeTellsWhichPluginsExist(t *testing.T) {
	have := pluginNames(t, build(t))
	var told []string
	for _, row := range tableRow.FindAllStringSubmatch(read(t, "README.md"), -1) {
		if row[1] != "" {
			told = append(told, row[1])
		}
		if row[1] != "" && !exists("plugins/"+row[2]) {
			t.Errorf("README.md: plugins/%s does not exist", row[2])
		}
		if row[3] != "" && slices.Contains(have, row[3]) {
			t.Errorf("README.md: %s exists: its row needs the link to plugins/…/README.md", row[3])
		}
	}
	slices.Sort(told)
	if !slices.Equal(told, have) {
		t.Errorf("README.md links the plugins %v; bin/cni has %v", told, have)
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	for _, f := range files(t, ".md") {
		for _, m := range mdLink.FindAllStringSubmatch(read(t, f), -1) {
			if target := filepath.Join(filepath.Dir(f), m[1]); !exists(target) {
				t.Errorf("%s: %s does not exist", f, m[1])
			}
		}
	}
}

// procRoot is the root of a process or thread in /proc.
var procRoot = regexp.MustCompile(`/([0-9*]+|self|%[dsv])/ro` + `ot/`)

// Texts do not mention the machine that they were written on.
func TestNoPlacesInText(t *testing.T) {
	places := []string{"/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "go" + "proxy", "proxy." + "golang", "mir" + "ror."}
	for _, f := range files(t) {
		if filepath.Base(f) == "go.sum" {
			continue // the names in it are those of modules
		}
		body := procRoot.ReplaceAllString(strings.ToLower(read(t, f)), "")
		for _, p := range places {
			if strings.Contains(body, p) {
				t.Errorf("%s: has %q", f, p)
			}
		}
	}
}

func TestChangelogHasUnreleased(t *testing.T) {
	if !strings.Contains(read(t, "CHANGELOG.md"), "\n## Unreleased\n") {
		t.Error("CHANGELOG.md: no section Unreleased")
	}
}

// Decisions are numbered without gaps, and each has its alternatives and costs.
func TestDecisions(t *testing.T) {
	next := 1
	for _, f := range files(t, ".md") {
		if filepath.Dir(f) != "docs/adr" {
			continue
		}
		m := adrName.FindStringSubmatch(f)
		if m == nil {
			t.Errorf("%s: not NNNN-title.md", f)
			continue
		}
		if want := fmt.Sprintf("%04d", next); m[1] != want {
			t.Errorf("%s: number %s, want %s", f, m[1], want)
		}
		next++
		for _, section := range []string{"# ", "\n## Context\n", "\n## Decision\n", "\n## Alternatives\n", "\n## Cost\n"} {
			if !strings.Contains(read(t, f), section) {
				t.Errorf("%s: no section %q", f, strings.TrimSpace(section))
			}
		}
	}
}

// Every linter has its reason.
func TestLintersHaveReasons(t *testing.T) {
	reasons := read(t, "CONTRIBUTING.md")
	found := linter.FindAllStringSubmatch(read(t, ".golangci.yml"), -1)
	if len(found) < 10 {
		t.Fatalf("found %d linters", len(found))
	}
	for _, m := range found {
		if !strings.Contains(reasons, "| "+m[1]+" | ") {
			t.Errorf("CONTRIBUTING.md: no reason for %s", m[1])
		}
	}
}
