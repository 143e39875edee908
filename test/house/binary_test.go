package house

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// build builds the plugin binary as the Makefile does and returns its path.
func build(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "cni")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, "./cmd/cni")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	return out
}

// pluginNames asks the plugin binary for its plugins.
func pluginNames(t *testing.T, binary string) []string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Stderr = &stderr
	_ = cmd.Run() // it fails: cni is no plugin's name
	for line := range strings.Lines(stderr.String()) {
		if strings.HasPrefix(line, "  ") {
			return strings.Fields(line)
		}
	}
	t.Fatalf("lists no plugins: %s", &stderr)
	return nil
}

// maxBinary is what a file that stands under 18 names and in every page cache
// may weigh.
const maxBinary = 8 << 20

func TestPluginBinaryIsSmallAndStatic(t *testing.T) {
	binary := build(t)
	st, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() > maxBinary {
		t.Errorf("bin/cni: %d bytes, want at most %d", st.Size(), maxBinary)
	}
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("bin/cni is not static")
		}
	}
}

// The same source gives the same bytes.
func TestBuildIsReproducible(t *testing.T) {
	a, err := os.ReadFile(build(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(build(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two builds differ")
	}
}
