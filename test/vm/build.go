package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

// buildTests compiles the test binaries of the packages for arch into dir. Packages without tests are left out; the others are in the
// order of the patterns.
func buildTests(ctx context.Context, arch, dir string, patterns []string) ([]job.Test, error) {
	var tests []job.Test
	for _, p := range patterns {
		found, err := findTests(ctx, p)
		if err != nil {
			return nil, err
		}
		for _, t := range found {
			if !slices.ContainsFunc(tests, func(o job.Test) bool { return o.Package == t.Package }) {
				tests = append(tests, t)
			}
		}
	}
	for i, batch := range batches(tests) {
		if err := buildBatch(ctx, arch, filepath.Join(dir, strconv.Itoa(i)), batch); err != nil {
			return nil, err
		}
	}
	return tests, nil
}

// findTests finds the packages of a pattern that have tests. After an @ it says which of their tests to run.
func findTests(ctx context.Context, pattern string) ([]job.Test, error) {
	const tested = `{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}`
	packages, run, _ := strings.Cut(pattern, "@")
	list, err := output(ctx, ".", "go", "list", "-f", tested, packages)
	if err != nil {
		return nil, err
	}
	var tests []job.Test
	for line := range strings.Lines(list) {
		pkg, source, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok {
			tests = append(tests, job.Test{Package: pkg, Dir: source, Run: run})
		}
	}
	return tests, nil
}

// batches groups tests so that no two of a group have the same base name: go test names a binary after it. A group is compiled
// by one command, which keeps all processors busy.
func batches(tests []job.Test) [][]*job.Test {
	var groups [][]*job.Test
	seen := map[string]int{}
	for i := range tests {
		name := path.Base(tests[i].Package)
		n := seen[name]
		seen[name]++
		if n == len(groups) {
			groups = append(groups, nil)
		}
		groups[n] = append(groups[n], &tests[i])
	}
	return groups
}

// buildBatch compiles the tests into dir and notes where each binary is.
func buildBatch(ctx context.Context, arch, dir string, tests []*job.Test) error {
	argv := []string{"test", "-c", "-o", dir + "/"}
	for _, t := range tests {
		argv = append(argv, t.Package)
		t.Binary = filepath.Join(dir, path.Base(t.Package)+".test")
	}
	if err := static(ctx, arch, argv...); err != nil {
		return fmt.Errorf("test binaries: %w", err)
	}
	for _, t := range tests {
		if _, err := os.Stat(t.Binary); err != nil {
			return fmt.Errorf("test binary of %s: %w", t.Package, err)
		}
	}
	return nil
}

// static runs go so that what it builds for arch needs no library.
func static(ctx context.Context, arch string, argv ...string) error {
	cmd := exec.CommandContext(ctx, "go", argv...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}
