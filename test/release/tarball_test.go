package release

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// fetch is what guides to kubeadm, Ansible roles and images have people run, with
// the archive in place of the download.
const fetch = `
ARCH="amd64"
DEST="/opt/cni/bin"
mkdir -p "$DEST"
cat "cni-plugins-linux-${ARCH}-${CNI_PLUGINS_VERSION}.tgz" | tar -C "$DEST" -xz
`

// A node that was set up by such a script: the same script with our version puts
// our plugins over the reference's, a container that is attached keeps its network
// and can be detached, and a new one is attached.
func TestTarball(t *testing.T) {
	needRoot(t)
	release := built(t)
	h := bed.New(t, "tar")
	h.InstallReference()
	h.OwnEtc() // and an /opt/cni/bin
	h.Run("sh", "-ec", "cd "+h.Plugins+" && tar -czf "+h.Dir+"/cni-plugins-linux-amd64-v1.9.1.tgz . && rm -rf ./*")
	h.Run("cp", filepath.Join(release, "cni-plugins-linux-amd64-v"+version+".tgz"), h.Dir)
	h.Sh("CNI_PLUGINS_VERSION=v1.9.1\n" + fetch)
	about := func() string { return h.Sh("/opt/cni/bin/bridge 2>&1 | head -n 1 || true") }
	if got := about(); got != "CNI bridge plugin v1.9.1\n" {
		t.Fatalf("the reference's: %q", got)
	}
	list := h.List(`{
		"cniVersion": "1.0.0", "name": "nat",
		"plugins": [{"type": "bridge", "bridge": "cni-nat", "isDefaultGateway": true, "ipMasq": true,
			"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.90.0.0/24"}]]}}]
	}`)
	old := h.Container("old")
	h.Add(list, old)
	h.Serve("old", "80")

	h.Sh("CNI_PLUGINS_VERSION=v" + version + "\n" + fetch)
	if got := about(); got != "CNI bridge plugin v"+version+"\n" {
		t.Errorf("after the script: %q", got)
	}
	had := strings.Fields(h.Sh("tar -tzf cni-plugins-linux-amd64-v1.9.1.tgz"))
	has := h.Sh("cd /opt/cni/bin && find . -type f -links +1")
	for _, name := range had {
		if name != "./" && !strings.Contains(has, name+"\n") {
			t.Errorf("%s: not replaced", name)
		}
	}
	h.Run(h.Netcleat(), "install", "--check", "/opt/cni/bin")

	new := h.Container("new")
	h.Add(list, new)
	h.Wants("old saw 10.90.0.3", h.In("new").TCP("10.90.0.2:80"))
	h.Del(list, old)
	h.Del(list, new)
	h.RemoveContainers("old", "new")
	h.Left("cni-nat")
}

// The other tarball has what docs/install.md says.
func TestFullTarball(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	run(t, "tar", "-C", dir, "-xzf", filepath.Join(built(t), "netcleat-linux-amd64-v"+version+".tgz"))
	bin := filepath.Join(dir, "bin")
	run(t, filepath.Join(dir, "netcleat-v"+version, "netcleat"), "install", bin)
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md", "man/netcleat.8", "completions/bash/netcleat", "systemd/netcleat-dhcp.service", "examples/bridge-nat.conflist"} {
		if _, err := os.Stat(filepath.Join(dir, "netcleat-v"+version, name)); err != nil {
			t.Error(err)
		}
	}
}
