package house

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rooms are where things may be.
var rooms = []string{".ci", ".git", "bin", "build", "cmd", "conflist-examples", "docs", "pkg", "plugins", "scripts", "test"}

func TestRooms(t *testing.T) {
	for _, d := range dirs(t, ".") {
		if !slices.Contains(rooms, d) {
			t.Errorf("%s: no such room in ARCHITECTURE.md", d)
		}
	}
}

// Every plugin's room has the same doors.
func TestPluginRooms(t *testing.T) {
	for _, d := range dirs(t, "plugins") {
		room := filepath.Join("plugins", d)
		if !exists(filepath.Join(room, "README.md")) {
			t.Errorf("%s: no README.md", room)
		}
		tests, err := filepath.Glob(filepath.Join(root, room, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		if len(tests) == 0 {
			t.Errorf("%s: no tests", room)
		}
		if !strings.Contains(source(t, room), "var Plugin = ") {
			t.Errorf("%s: no `var Plugin = …`", room)
		}
	}
}

// source is a package's code without its tests.
func source(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	for _, f := range files(t, ".go") {
		if filepath.Dir(f) == dir && !strings.HasSuffix(f, "_test.go") {
			all.WriteString(read(t, f))
		}
	}
	return all.String()
}

// A package has a noun for a name that says what it holds.
func TestPackageNames(t *testing.T) {
	for _, f := range files(t, ".go") {
		for part := range strings.SplitSeq(filepath.Dir(f), string(filepath.Separator)) {
			if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "types", "lib"}, part) {
				t.Errorf("%s: %q says nothing", f, part)
			}
		}
	}
}

// CI runs what developers run.
func TestCIRunsMakeTestOnly(t *testing.T) {
	var commands []string
	for line := range strings.Lines(read(t, ".ci/run")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			commands = append(commands, line)
		}
	}
	want := []string{"set -euo pipefail", `cd "$(dirname "$0")/.."`, "exec make test </dev/null"}
	if !slices.Equal(commands, want) {
		t.Errorf(".ci/run has %q, want %q", commands, want)
	}
}
