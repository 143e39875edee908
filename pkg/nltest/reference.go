package nltest

import (
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
		dir = filepath.Join(repository(t), "build/reference/bin")
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

// repository is where go.mod is.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	must(t, err)
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("no go.mod above the test")
	return ""
}
