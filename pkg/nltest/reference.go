package nltest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Reference returns the directory of the reference's plugins, which
// `make install-deps` puts into build/reference/bin; REFERENCE names another. It
// skips the test where they are not installed, and fails it in CI.
func Reference(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("REFERENCE")
	if dir == "" {
		repo, err := Repository()
		must(t, err)
		dir = filepath.Join(repo, "build/reference/bin")
	}
	if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
		return dir
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("the reference's plugins are not in %s", dir)
	}
	t.Skip("the reference's plugins are not installed: make install-deps")
	return ""
}

// Repository returns the directory above the test's in which go.mod is.
func Repository() (string, error) {
	start, err := os.Getwd()
	for dir := start; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("go.mod: none above %s: %w", start, errors.Join(err, fs.ErrNotExist))
}
