package house

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports"}, args...)...)
	cmd.Dir = root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// inside returns the path below the module, and whether it is of the module.
func inside(path string) (string, bool) { return strings.CutPrefix(path, module+"/") }

// plugin returns the plugin's room that a package is in, or "".
func plugin(path string) string {
	rel, ok := inside(path)
	if parts := strings.Split(rel, "/"); ok && parts[0] == "plugins" && len(parts) > 1 {
		return parts[1]
	}
	return ""
}

// Imports go from cmd to plugins to pkg; no plugin imports another; nothing but
// tests imports test/.
func TestImportDirection(t *testing.T) {
	for _, p := range list(t, "./...") {
		from, _ := inside(p.ImportPath)
		for _, i := range p.Imports {
			if to, ok := inside(i); ok && !allowed(from, to) {
				t.Errorf("%s imports %s", from, to)
			}
		}
		for _, i := range slices.Concat(p.TestImports, p.XTestImports) {
			if a, b := plugin(p.ImportPath), plugin(i); strings.HasPrefix(from, "pkg/") && b != "" || a != "" && b != "" && a != b && !ipam(b) {
				t.Errorf("the tests of %s import %s", from, i)
			}
		}
	}
}

// ipam reports whether a plugin hands out addresses: the tests of those that
// make interfaces delegate to it.
func ipam(room string) bool { return strings.HasSuffix(room, "-ipam") }

// level orders the rooms: imports go down.
func level(path string) int {
	room, _, _ := strings.Cut(path, "/")
	return slices.Index([]string{"pkg", "plugins", "cmd", "test", "scripts"}, room)
}

func allowed(from, to string) bool {
	if a, b := plugin(module+"/"+from), plugin(module+"/"+to); a != "" && b != "" {
		return a == b
	}
	return level(from) >= level(to)
}

// dear is what the plugin binary must not link: it is paid for at every start of
// every plugin. os/user, which godbus imports, initializes nothing.
var dear = []string{
	"net/http", "text/template", "html", "testing", "log/slog",
	"github.com/containernetworking/cni/pkg/skel",
	"github.com/containernetworking/cni/pkg/invoke",
	"github.com/containernetworking/cni/libcni",
	"github.com/containernetworking/plugins",
	"github.com/spf13",
	"github.com/insomniacslk/dhcp",
	"github.com/vishvananda/netlink",
	"go.etcd.io",
	"go.opentelemetry.io",
	"google.golang.org",
	"k8s.io",
	"github.com/santhosh-tekuri",
	"golang.org/x/tools",
	module + "/docs",
	module + "/pkg/nltest",
	module + "/test",
}

// free is what of the dear the plugin binary may link, since it costs nothing that can
// be measured: docs/adr/0005-own-rtnetlink-codec.md.
var free = []string{"github.com/vishvananda/netlink/nl"}

func TestPluginBinaryLinksNothingDear(t *testing.T) {
	for _, p := range list(t, "-deps", "./cmd/cni") {
		for _, d := range dear {
			if slices.Contains(free, p.ImportPath) {
				continue
			}
			if p.ImportPath == d || strings.HasPrefix(p.ImportPath, d+"/") {
				t.Errorf("cmd/cni links %s: see `go mod why`, or `go list -deps -f '{{.ImportPath}}: {{.Imports}}' ./cmd/cni`", p.ImportPath)
			}
		}
	}
}
