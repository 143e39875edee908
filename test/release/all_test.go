package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// needAll skips what takes longer than make test has.
func needAll(t *testing.T) {
	t.Helper()
	needRoot(t)
	if os.Getenv("RELEASE") != "all" {
		t.Skip("takes long: make test-release")
	}
}

// The whole release, and once more on another path without what was compiled
// before, without a network and by another user's settings: the same bytes.
func TestReproducible(t *testing.T) {
	needAll(t)
	repo := repository(t)
	run(t, "make", "-s", "release")
	first := read(t, filepath.Join(repo, "build/release/SHA256SUMS"))
	for _, arch := range []string{"amd64", "arm64", "arm", "386", "riscv64", "s390x", "ppc64le", "mips64le"} {
		if !strings.Contains(first, "  cni-plugins-linux-"+arch+"-v"+version+".tgz\n") {
			t.Errorf("no tarball for %s", arch)
		}
	}
	dir := filepath.Join(t.TempDir(), "a", "longer", "path")
	must(t, os.MkdirAll(dir, 0o755))
	run(t, "sh", "-ec", "git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "+dir)
	revision := strings.TrimSpace(run(t, "git", "rev-parse", "HEAD"))
	epoch := strings.TrimSpace(run(t, "git", "log", "-1", "--format=%ct"))
	cmd := exec.CommandContext(t.Context(), "make", "-s", "release")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GO"+"PROXY=off", "SOURCE_REVISION="+revision, "SOURCE_DATE_EPOCH="+epoch,
		"GOCACHE="+t.TempDir(), "TZ=Asia/Tokyo", "USER=other", "GOAMD64=v3", "GOARM=7", "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if diff := cmp.Diff(first, read(t, filepath.Join(dir, "build/release/SHA256SUMS"))); diff != "" {
		t.Error(diff)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

const image = "ghcr.io/netcleat/netcleat:v" + version

// node is a host with containerd, whose plugins' directory has the reference's.
func node(t *testing.T) (*bed.Host, *bed.Containerd) {
	t.Helper()
	h := bed.New(t, "containerd", "ctr", "runc", "busybox", "mount")
	h.InstallReference()
	h.OwnEtc()
	h.Write("/etc/cni/net.d/10-pods.conflist", `{
		"cniVersion": "1.0.0", "name": "pods",
		"plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
			"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]
	}`)
	c := h.Containerd()
	c.Ctr("--namespace=k8s.io", "images", "import", filepath.Join(built(t), "netcleat-image-v"+version+".tar"))
	return h, c
}

// The image's own command installs over the reference's into the node's directory,
// with no privilege but that of root's files; it goes back with --uninstall; and on
// a read-only directory it changes nothing.
func TestImage(t *testing.T) {
	needAll(t)
	h, c := node(t)
	n := 0
	ctr := func(mode string, args ...string) (string, error) {
		n++
		argv := append([]string{
			"ctr", "--address=" + h.Dir + "/containerd.sock", "--namespace=k8s.io", "run", "--rm", "--read-only", "--cgroup=" + h.Cgroup(),
			"--cap-drop=CAP_NET_ADMIN", "--cap-drop=CAP_SYS_ADMIN", "--cap-drop=CAP_DAC_OVERRIDE",
			"--mount=type=bind,src=/opt/cni/bin,dst=/host/opt/cni/bin,options=rbind:" + mode, image, "install" + string(rune('a'+n)),
		}, args...)
		return h.Try(argv...)
	}
	about := func() string { return strings.TrimSpace(h.Sh("/opt/cni/bin/bridge 2>&1 | head -n 1 || true")) }
	if out, err := ctr("ro"); err == nil || !strings.Contains(out, "read-only file system") {
		t.Errorf("read-only: %v: %s", err, out)
	}
	if got := about(); got != "CNI bridge plugin v1.9.1" {
		t.Errorf("after it: %q", got)
	}
	if out, err := ctr("rw"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := about(); got != "CNI bridge plugin v"+version {
		t.Errorf("after the image: %q", got)
	}
	if out, err := ctr("ro", "/netcleat", "install", "--check", "/host/opt/cni/bin"); err != nil {
		t.Errorf("--check: %v: %s", err, out)
	}
	if out, err := ctr("rw", "/netcleat", "install", "--uninstall", "/host/opt/cni/bin"); err != nil {
		t.Errorf("--uninstall: %v: %s", err, out)
	}
	if left := h.Sh("ls -A /opt/cni/bin"); left != "" { // there was no --backup
		t.Errorf("left: %s", left)
	}
	c.Stop()
}

// The tests of what makes the release, which is a module of its own.
func TestModule(t *testing.T) {
	needAll(t)
	run(t, "go", "test", "-C", "scripts/release", ".")
}

// kustomize builds the manifests, and those that go back.
func TestKustomize(t *testing.T) {
	needAll(t)
	for dir, flag := range map[string]string{"deploy/kubernetes": "--backup", "deploy/kubernetes-uninstall": "--uninstall"} {
		out := run(t, bed.Client(t, "kustomize"), "build", dir)
		first, second := strings.Index(out, "\nkind: Namespace\n"), strings.Index(out, "\nkind: DaemonSet\n")
		if first < 0 || second < first {
			t.Errorf("%s: no namespace before the DaemonSet: %s", dir, out)
		}
		if !strings.Contains(out, "- install\n        - "+flag+"\n        - /host/opt/cni/bin\n        image: "+image+"\n") {
			t.Errorf("%s: does not run %s %s: %s", dir, image, flag, out)
		}
		if probed := strings.Contains(out, "readinessProbe:"); probed != (flag == "--backup") {
			t.Errorf("%s: readiness probe: %v", dir, probed)
		}
	}
}

// The other package is as rpm wants it.
func TestRPM(t *testing.T) {
	needAll(t)
	path := filepath.Join(built(t), "netcleat-"+version+"-1.x86_64.rpm")
	run(t, "rpm", "--checksig", "--nosignature", path)
	if got := run(t, "rpm", "-qp", "--nosignature", "--provides", "--conflicts", "--obsoletes", path); strings.Count(got, "containernetworking-plugins") != 3 {
		t.Errorf("relations: %s", got)
	}
	files := run(t, "rpm", "-qpl", "--nosignature", path)
	for _, file := range []string{"/usr/libexec/cni/bridge", "/usr/libexec/cni/.netcleat", "/usr/bin/netcleat", "/usr/lib/systemd/system/netcleat-dhcp.service"} {
		if !strings.Contains(files, file+"\n") {
			t.Errorf("%s is missing", file)
		}
	}
}

// Every platform's program is of its architecture, and static.
func TestPlatforms(t *testing.T) {
	needAll(t)
	out := run(t, "sh", "-ec", `
		for a in amd64 arm64 arm 386 riscv64 s390x ppc64le mips64le; do
			rm -rf build/release.x && mkdir build/release.x
			tar -C build/release.x -xzf build/release/cni-plugins-linux-$a-v`+version+`.tgz
			printf '%s ' $a
			od -An -tx1 -j18 -N2 build/release.x/bridge
			! grep -q ld-linux build/release.x/bridge
		done
		rm -rf build/release.x`)
	want := "amd64  3e 00\narm64  b7 00\narm  28 00\n386  03 00\nriscv64  f3 00\ns390x  00 16\nppc64le  15 00\nmips64le  08 00\n"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
}
