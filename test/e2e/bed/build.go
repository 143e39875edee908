package bed

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/netcleat/netcleat/pkg/nltest"
)

// builds are the programs that stories run.
type builds struct {
	reference string // directory of the reference's plugins, with cnitool
	plugins   string // the plugin binary
	netcleat  string // the operator's command
	peer      string // see test/e2e/peer
}

// buildOnce builds the programs into the repository's build/e2e, where the tests
// of another package, which may run meanwhile, find them up to date. Where there
// is no go, as in a machine of test/vm, they are there already.
var buildOnce = sync.OnceValues(func() (builds, error) {
	repo, err := nltest.Repository()
	if err != nil {
		return builds{}, err
	}
	out := filepath.Join(repo, "build/e2e")
	b := builds{filepath.Join(repo, "build/reference/bin"), out + "/cni", out + "/netcleat", out + "/peer"}
	if _, err := exec.LookPath("go"); err != nil {
		_, err = os.Stat(b.plugins)
		return b, err
	}
	return b, errors.Join(
		os.MkdirAll(out, 0o755),
		output(filepath.Join(repo, "scripts/reference")),
		output("flock", out+"/lock", "env", "CGO_ENABLED=0", "go", "build", "-C", repo, "-o", out, "./cmd/cni", "./cmd/netcleat", "./test/e2e/peer"),
	)
})

// build returns the programs, and looks at every source file, so that go test
// does not answer from its cache when what the stories run has changed.
func build(t testing.TB) builds {
	t.Helper()
	b, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	repo, err := nltest.Repository()
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range []string{"cmd", "pkg", "plugins", "test/e2e/peer"} {
		err := filepath.WalkDir(filepath.Join(repo, room), func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return b
}

func output(argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return nil
}

// installPlugins fills the plugins' directory with ours, and no other's. With
// CNI_BIN set it has the plugins of that directory.
func (h *Host) installPlugins() {
	h.t.Helper()
	if dir := os.Getenv("CNI_BIN"); dir != "" {
		h.must(os.CopyFS(h.Plugins, os.DirFS(dir)))
		return
	}
	h.InstallOurs()
}

// InstallReference has the plugins' directory hold the reference's, and no other.
func (h *Host) InstallReference() {
	h.t.Helper()
	old, err := os.ReadDir(h.Plugins)
	h.must(err)
	for _, file := range old { // the directory stays: it may be mounted elsewhere
		h.must(os.RemoveAll(filepath.Join(h.Plugins, file.Name())))
	}
	h.must(os.CopyFS(h.Plugins, os.DirFS(h.built.reference)))
	h.must(os.Remove(h.Plugins + "/cnitool"))
}

// InstallOurs installs our plugins with the operator's command, and its flags.
func (h *Host) InstallOurs(flags ...string) {
	h.t.Helper()
	h.must(output(append([]string{h.built.netcleat, "install", h.Plugins}, flags...)...))
}

// Netcleat is the operator's command.
func (h *Host) Netcleat() string { return h.built.netcleat }

// Peer is the program of both ends of the stories' traffic.
func (h *Host) Peer() string { return h.built.peer }

// Reference is the directory of the reference's plugins.
func (h *Host) Reference() string { return h.built.reference }

// Cnitool is the runtime of the specification's authors.
func (h *Host) Cnitool() string { return h.built.reference + "/cnitool" }

// Client is a runtime that scripts/client builds, which takes minutes where it is
// not built yet.
func Client(t testing.TB, name string) (path string) {
	t.Helper()
	repo, err := nltest.Repository()
	if err != nil {
		t.Fatal(err)
	}
	if err := output(filepath.Join(repo, "scripts/client"), name); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(repo, "build/clients", name)
}

// ModuleVersion is a program's name and the version of the module that it is built
// from: so built, some do not know their own.
func ModuleVersion(t testing.TB, program string) string {
	t.Helper()
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(program) + " " + strings.TrimPrefix(info.Main.Version, "v")
}
