package house

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// build builds the plugin binary as the Makefile does and returns its path.
func build(t *testing.T) string {
	t.Helper()
	return buildIn(t, root)
}

// buildIn builds the source in dir, with more in the environment.
func buildIn(t *testing.T, dir string, env ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "cni")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, "./cmd/cni")
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "CGO_ENABLED=0"), env...)
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

// What code runs before main: of our packages one, which says why, and before all
// others; and none of what is not used.
func TestStart(t *testing.T) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), build(t))
	cmd.Env, cmd.Stderr = []string{"GODEBUG=inittrace=1"}, &stderr
	_ = cmd.Run() // it fails: cni is no plugin's name
	var all []string
	for line := range strings.Lines(stderr.String()) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "init" {
			all = append(all, f[1])
		}
	}
	const headroom = "github.com/netcleat/netcleat/pkg/headroom"
	at := slices.Index(all, headroom)
	if at < 0 {
		t.Fatalf("%s: not among %v", headroom, all)
	}
	for _, p := range all[:at] {
		if p != "runtime" && !strings.HasPrefix(p, "internal/") {
			t.Errorf("%s is initialized before %s", p, headroom)
		}
	}
	for _, p := range all[at+1:] {
		if strings.HasPrefix(p, "github.com/netcleat/") || strings.HasPrefix(p, "crypto") || p == "net/http" {
			t.Errorf("%s is initialized at every start", p)
		}
	}
}

// The same source gives the same bytes, wherever it lies and whatever was built
// before.
func TestBuildIsReproducible(t *testing.T) {
	a := sum(t, build(t))
	if b := sum(t, elsewhere(t)); a != b {
		t.Errorf("two builds from two directories: SHA-256 %s and %s", a, b)
	}
}

func sum(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(content))
}

// elsewhere copies the source to another directory and builds it there, and all
// that it needs, without what was compiled before.
func elsewhere(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a", "longer", "path")
	for _, f := range append(files(t, ".go"), "go.mod", "go.sum") {
		to := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(read(t, f)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return buildIn(t, dir, "GOCACHE="+t.TempDir(), "TZ=Asia/Tokyo", "USER=somebody")
}
