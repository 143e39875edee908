package house

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// topLevel are the directories of the repository.
var topLevel = []string{".ci", ".git", ".github", "bin", "build", "cmd", "conflist-examples", "deploy", "docs", "pkg", "plugins", "scripts", "test"}

func TestTopLevelDirectories(t *testing.T) {
	for _, d := range dirs(t, ".") {
		if !slices.Contains(topLevel, d) {
			t.Errorf("%s: not in the layout of ARCHITECTURE.md", d)
		}
	}
}

// All plugins have the same layout.
func TestPluginLayout(t *testing.T) {
	for _, d := range dirs(t, "plugins") {
		dir := filepath.Join("plugins", d)
		if !exists(filepath.Join(dir, "README.md")) {
			t.Errorf("%s: no README.md", dir)
		}
		tests, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		if len(tests) == 0 {
			t.Errorf("%s: no tests", dir)
		}
		if !strings.Contains(source(t, dir), "var Plugin = ") {
			t.Errorf("%s: no `var Plugin = …`", dir)
		}
	}
}

// source returns a package's code without its tests.
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

// Package names are nouns that say what the package contains.
func TestPackageNames(t *testing.T) {
	for _, f := range files(t, ".go") {
		for part := range strings.SplitSeq(filepath.Dir(f), string(filepath.Separator)) {
			if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "types", "lib"}, part) {
				t.Errorf("%s: %q says nothing", f, part)
			}
		}
	}
}

// A file that has more to say has more than one subject.
func TestFilesAreShort(t *testing.T) {
	const most = 450 // lines
	for _, f := range files(t, ".go") {
		product := slices.Contains([]string{"cmd", "plugins", "pkg"}, strings.Split(f, string(filepath.Separator))[0])
		if n := strings.Count(read(t, f), "\n"); product && n > most && !strings.HasSuffix(f, "_test.go") {
			t.Errorf("%s: %d lines, at most %d", f, n, most)
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

var (
	runStep     = regexp.MustCompile(`(?m)^ *(?:- )?run: *(.*)$`)
	makeStep    = regexp.MustCompile(`^(?:sudo env "PATH=\$PATH" )?make ([a-z -]+)(?: 2>&1 \| tee [a-z]+\.txt)?$`)
	publishStep = regexp.MustCompile(`^(gh release create|grep -qF|sudo chown|\|)`)
	makeTarget  = regexp.MustCompile(`(?m)^([a-z-]+):`)
	goArchs     = regexp.MustCompile(`goarch: \[(.*)\]`)
)

// Workflows only call make, with targets that exist, so that developers can run the
// same.
func TestWorkflowsCallMakeOnly(t *testing.T) {
	var targets []string
	for _, m := range makeTarget.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets = append(targets, m[1])
	}
	workflows := 0
	for _, f := range files(t, ".yml") {
		if filepath.Dir(f) != ".github/workflows" {
			continue
		}
		workflows++
		steps := runStep.FindAllStringSubmatch(read(t, f), -1)
		if len(steps) == 0 {
			t.Errorf("%s: no step runs anything", f)
		}
		for _, step := range steps {
			m := makeStep.FindStringSubmatch(step[1])
			if m == nil && filepath.Base(f) == "release.yml" && publishStep.MatchString(step[1]) {
				continue // only the project's own account can publish
			}
			if m == nil {
				t.Errorf("%s: %q is not a make call", f, step[1])
				continue
			}
			for _, target := range strings.Fields(m[1]) {
				if !slices.Contains(targets, target) {
					t.Errorf("%s: make has no target %s", f, target)
				}
			}
		}
	}
	if workflows == 0 {
		t.Error(".github/workflows: no workflows")
	}
}

// CI builds, and runs go vet, for every platform.
func TestWorkflowsBuildForAllPlatforms(t *testing.T) {
	m := goArchs.FindStringSubmatch(read(t, ".github/workflows/ci.yml"))
	if m == nil {
		t.Fatal("ci.yml: no matrix of platforms")
	}
	have := strings.Split(strings.ReplaceAll(strings.ReplaceAll(m[1], `"`, ""), " ", ""), ",")
	slices.Sort(have)
	if !slices.Equal(have, platforms) {
		t.Errorf("ci.yml builds for %v, want %v", have, platforms)
	}
}
