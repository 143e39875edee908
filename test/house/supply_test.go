package house

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// vulncheck runs `make vulncheck` on the plugin binary's code against a database
// that holds the entry, and returns what it says and how it ends.
func vulncheck(t *testing.T, entry string, env ...string) (string, int) {
	t.Helper()
	db := t.TempDir()
	if entry != "" {
		if err := os.WriteFile(filepath.Join(db, "GO-2099-0001.json"), []byte(entry), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "make", "-s", "vulncheck", "VULNPKGS=./cmd/cni")
	cmd.Dir, cmd.Env = root, append(append(os.Environ(), "VULNDB=file://"+db), env...)
	out, err := cmd.CombinedOutput()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

const nothingKnown = "No vulnerabilities found."

// A vulnerability in what is called fails the check; none, or one in what is not
// called, does not.
func TestVulnerabilitiesAreFound(t *testing.T) {
	entry := func(symbol string) string {
		return `{"schema_version":"1.3.1","id":"GO-2099-0001","modified":"2026-01-01T00:00:00Z","published":"2026-01-01T00:00:00Z","summary":"example",
			"database_specific":{"url":"https://example.org"},"affected":[{"package":{"name":"golang.org/x/sys","ecosystem":"Go"},
			"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}],"ecosystem_specific":{"imports":[{"path":"golang.org/x/sys/unix","symbols":["` + symbol + `"]}]}}]}`
	}
	if out, exit := vulncheck(t, entry("Unlink")); exit == 0 || !strings.Contains(out, "GO-2099-0001") || strings.Contains(out, nothingKnown) {
		t.Errorf("a vulnerability in what is called: exit %d\n%s", exit, out)
	}
	for _, e := range []string{"", entry("Swapon")} {
		if out, exit := vulncheck(t, e); exit != 0 || !strings.Contains(out, "No vulnerabilities found") && !strings.Contains(out, "affected by 0 vulnerabilities") {
			t.Errorf("nothing that concerns us: exit %d\n%s", exit, out)
		}
	}
}

// Where the database cannot be asked nothing is said to be clean: make vulncheck
// fails, and scripts/vulncheck has a status for it that make lint lets pass.
func TestNoAnswerOfTheDatabaseIsNotClean(t *testing.T) {
	for _, env := range [][]string{
		{"VULNDB=", "HTTPS_PROXY=http://127.0.0.1:1"},
		{"VULNDB=http://127.0.0.1:1"},
		{"VULNDB=file:///nonexistent"},
	} {
		out, exit := vulncheck(t, "", env...)
		if exit == 0 || !strings.Contains(out, "NOT CHECKED") || strings.Contains(out, nothingKnown) || !strings.Contains(out, "Error 4") {
			t.Errorf("%v: exit %d\n%s", env, exit, out)
		}
	}
}

// The bill of materials names every module in the programs, with its version, and
// each program by its hash.
func TestBillOfMaterialsIsWhole(t *testing.T) {
	binary := build(t)
	cmd := exec.CommandContext(t.Context(), "go", "run", "./scripts/sbom", binary)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var bom struct {
		BomFormat, SpecVersion string
		Components             []struct{ Name, Version string }
		Dependencies           []struct {
			Ref       string
			DependsOn []string
		}
	}
	if err := json.Unmarshal(out, &bom); err != nil || bom.BomFormat != "CycloneDX" || bom.SpecVersion != "1.5" {
		t.Fatalf("%v: %s", err, out)
	}
	named := map[string]string{}
	for _, c := range bom.Components {
		named[c.Name] = c.Version
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Deps) == 0 {
		t.Fatal("the binary names no module")
	}
	for _, m := range info.Deps {
		if named[m.Path] != m.Version {
			t.Errorf("%s: version %q in the bill, %q in the binary", m.Path, named[m.Path], m.Version)
		}
	}
	if want := strings.TrimPrefix(info.GoVersion, "go"); named["std"] != want {
		t.Errorf("std: version %q in the bill, %q in the binary", named["std"], want)
	}
	if want := len(info.Deps) + 2; len(bom.Components) != want { // std, and the binary
		t.Errorf("%d components, want %d:\n%s", len(bom.Components), want, out)
	}
	for _, d := range bom.Dependencies {
		if d.Ref == "file:cni" && len(d.DependsOn) != len(info.Deps)+1 {
			t.Errorf("cni depends on %v", d.DependsOn)
		}
	}
}
