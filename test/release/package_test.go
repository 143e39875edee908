package release

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// built makes the release for amd64 once, and returns its directory.
func built(t *testing.T) string {
	t.Helper()
	buildOnce.Do(func() { run(t, "make", "-s", "package") })
	return filepath.Join(repository(t), "build/package")
}

var buildOnce sync.Once

const version = plugin.Version

// deb is the path of the Debian package.
func deb(t *testing.T) string {
	t.Helper()
	return filepath.Join(built(t), "netcleat_"+version+"_amd64.deb")
}

// A fresh Debian: the package alone makes containers of podman reach each other,
// and leaves nothing but leases when it is removed.
func TestPackage(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := newDebian(t, "base")
	d.put(deb(t), "/tmp/netcleat.deb")
	d.sh("dpkg -i /tmp/netcleat.deb")
	d.says("netcleat v"+version, "netcleat version | cut -d' ' -f1,2")
	d.sh("apt-get install -y -q --no-install-recommends podman crun iptables nftables iproute2 busybox-static")
	d.says("", "dpkg-query -W -f '${Status}' containernetworking-plugins 2>/dev/null | grep -v not-installed || true")
	for _, file := range []string{"man/man8/netcleat-network-create.8.gz", "bash-completion/completions/netcleat", "doc/netcleat/examples/bridge-nat.conflist", "doc/netcleat/copyright"} {
		d.sh("test -f /usr/share/" + file)
	}
	d.says("", "dpkg --verify netcleat; systemd-analyze verify /usr/lib/systemd/system/netcleat-*.* 2>&1")
	d.sh("netcleat install --check /usr/lib/cni")

	d.sh("netcleat network create web --subnet 10.99.0.0/24")
	d.serve("one", "web")
	d.serve("two", "web")
	d.reaches("one", "two")
	d.reaches("two", "one")
	d.says("one\ntwo", "netcleat ls web --format '{{.Name}}' | sort")
	d.sh("podman rm --force --time=0 one two")
	d.sh("systemctl enable netcleat-dhcp.socket netcleat-reconcile.service")
	if out := d.sh("apt-get remove -y -q netcleat 2>&1"); !strings.Contains(out, "removed the unused networks web") {
		t.Errorf("says nothing of the network: %s", out)
	}
	d.left("/var/lib/cni\n/var/lib/cni/networks\n/var/lib/cni/results\nlo")
	d.sh("dpkg --purge netcleat")
	d.left("/var/lib/cni\n/var/lib/cni/networks\n/var/lib/cni/results\nlo")
}

// left wants no more than that of the package and its networks. Podman's own list
// is not among it.
func (d debian) left(want string) {
	d.t.Helper()
	d.says(want, `
		find / -xdev \( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \) -prune -o \
			\( -name '*netcleat*' -o -path '/usr/lib/cni*' -o -path '/opt/cni*' -o -path '/etc/cni/*' -o -path '/var/lib/cni*' \) -print |
			grep -v -e '^/etc/cni/net.d$' -e 87-podman -e cni.lock | sort
		find /run -name '*netcleat*'
		ip -o link | cut -d' ' -f2 | cut -d: -f1
		nft list ruleset`)
}

// watch calls a plugin again and again until it is stopped, and returns how often
// that failed.
func (d debian) watch(path string) (failed func() string) {
	d.t.Helper()
	cmd := d.cmd(`
		i=0
		while [ ! -e /tmp/stop ]; do
			i=$((i + 1))
			echo '{"cniVersion":"0.4.0"}' | CNI_COMMAND=VERSION ` + path + ` >/dev/null 2>/tmp/why || { echo "call $i failed:"; cat /tmp/why; }
		done
		[ $i -gt 20 ] || echo "only $i calls"`)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(d.t, cmd.Start())
	return func() string {
		d.sh("touch /tmp/stop")
		must(d.t, cmd.Wait())
		d.sh("rm /tmp/stop")
		return out.String()
	}
}

// repack is the package with another version.
func (d debian) repack(to string) {
	d.t.Helper()
	d.sh(`
		rm -rf /tmp/pack && dpkg-deb -R /tmp/netcleat.deb /tmp/pack && rm -f /tmp/pack/DEBIAN/conffiles
		sed -i 's/^Version: .*/Version: ` + to + `/' /tmp/pack/DEBIAN/control
		dpkg-deb -Znone -b /tmp/pack /tmp/netcleat-` + to + `.deb`)
}

// Over Debian's own plugins, under containers of podman, and all the ways back: no
// call of a plugin fails, the containers keep their network, and each suite
// detaches those of the other.
func TestUpgrade(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := newDebian(t, "podman")
	d.put(deb(t), "/tmp/netcleat.deb")
	d.repack("1.9.9~rc1")
	d.repack("1.10.1")
	d.serve("one", "podman")
	d.serve("two", "podman")
	d.reaches("one", "two")

	failed := d.watch("/usr/lib/cni/bridge")
	for _, step := range []string{
		"dpkg -i /tmp/netcleat-1.9.9~rc1.deb", "dpkg -i /tmp/netcleat.deb", "dpkg -i /tmp/netcleat-1.10.1.deb",
		"dpkg -i --force-downgrade /tmp/netcleat-1.9.9~rc1.deb", "dpkg -i /tmp/netcleat.deb",
	} {
		d.sh(step)
	}
	if why := failed(); why != "" {
		t.Errorf("calls failed: %s", why)
	}
	d.says("CNI bridge plugin v"+version, "/usr/lib/cni/bridge 2>&1 | head -n 1 || true")
	d.says("", "dpkg --verify netcleat")
	d.reaches("one", "two")
	d.serve("three", "podman")
	d.reaches("three", "one")
	d.reaches("two", "three")
	d.sh("podman rm --force --time=0 one")

	// Back to Debian's, of which two and three keep their network.
	out := d.sh("apt-get install -y -q --no-install-recommends containernetworking-plugins 2>&1")
	if !strings.Contains(out, "netcleat") {
		t.Errorf("netcleat was not removed: %s", out)
	}
	d.reaches("two", "three")
	d.sh("podman rm --force --time=0 two three && dpkg --purge netcleat")
	d.says("", "ls /var/lib/cni/networks/podman | grep ^10 || true")
	d.says("", "ip -o link show type veth")
}

// Removed with its dependants' containers running: they keep their network, it
// says what stays, and the next installation detaches them.
func TestRemoveUnderContainers(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := newDebian(t, "podman")
	d.put(deb(t), "/tmp/netcleat.deb")
	d.sh("mv /tmp/netcleat.deb /tmp/netcleat_" + version + "_amd64.deb && cd /tmp && apt install -y ./netcleat_" + version + "_amd64.deb && mv *_amd64.deb netcleat.deb")
	d.serve("one", "podman")
	d.serve("two", "podman")
	if out := d.sh("dpkg --purge --force-depends netcleat 2>&1"); !strings.Contains(out, "2 attachments of containers stay as they are") {
		t.Errorf("says nothing of the containers: %s", out)
	}
	d.reaches("one", "two")
	d.sh("dpkg -i /tmp/netcleat.deb && podman rm --force --time=0 one two")
	d.says("", "ip -o link show type veth; find /run/netcleat -mindepth 2 -not -path '*/.*' -type f")
}

// kubernetesCNI makes a package like that of kubeadm nodes, of that version.
func (d debian) kubernetesCNI(version string) {
	d.t.Helper()
	d.sh(`
		rm -rf /tmp/k && mkdir -p /tmp/k/DEBIAN /tmp/k/opt/cni/bin && cp /tmp/reference/* /tmp/k/opt/cni/bin/ && echo ` + version + ` >/tmp/k/opt/cni/bin/VERSION
		printf 'Package: kubernetes-cni\nVersion: ` + version + `\nArchitecture: amd64\nMaintainer: Test <test@example.org>\nDescription: plugins\n' >/tmp/k/DEBIAN/control
		dpkg-deb -Znone -b /tmp/k /tmp/kubernetes-cni-` + version + `.deb`)
}

// A kubeadm node, where the package kubernetes-cni owns /opt/cni/bin: its upgrades
// do not bring the reference back, and without netcleat it has its newest files.
func TestKubeadmNode(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := newDebian(t, "base")
	d.put(deb(t), "/tmp/netcleat.deb")
	reference := filepath.Join(repository(t), "build/reference/bin")
	run(t, "scripts/reference")
	for _, name := range []string{"bridge", "host-local", "loopback", "portmap"} { // the others are the same
		d.put(filepath.Join(reference, name), "/tmp/reference/"+name)
	}
	for _, v := range []string{"1.7.1", "1.8.0", "1.9.0"} {
		d.kubernetesCNI(v)
	}
	about := "/opt/cni/bin/bridge 2>&1 | head -n 1 || true"
	d.sh("dpkg -i /tmp/kubernetes-cni-1.7.1.deb")

	// By the package: it takes the plugins over when it is first installed.
	d.sh("dpkg -i /tmp/netcleat.deb")
	d.says("CNI bridge plugin v"+version, about)
	d.sh("netcleat install --check /opt/cni/bin")
	d.sh("dpkg -i /tmp/kubernetes-cni-1.8.0.deb")
	d.says("CNI bridge plugin v"+version, about)
	d.says("1.8.0", "cat /opt/cni/bin/VERSION") // which is no plugin of netcleat's
	d.sh("dpkg -r netcleat")
	d.says("CNI bridge plugin v1.9.1", about)
	d.says("", "dpkg-divert --list '*netcleat*'; dpkg --verify kubernetes-cni; find /opt/cni/bin -name '.netcleat*'; ls /opt/cni/bin | grep vrf || true")

	// By hand, as on a node where the command is not of the package.
	d.sh("dpkg-deb -x /tmp/netcleat.deb /tmp/x")
	out, err := d.try("/tmp/x/usr/lib/netcleat/netcleat install --plugins /tmp/x/usr/lib/cni/.netcleat --check /opt/cni/bin")
	if err == nil || !strings.Contains(out, "kubernetes-cni owns 4 of the names: its next upgrade brings its plugins back") {
		t.Errorf("--check: %v: %s", err, out)
	}
	d.sh("/tmp/x/usr/lib/netcleat/netcleat install --plugins /tmp/x/usr/lib/cni/.netcleat --backup /opt/cni/bin")
	d.sh("dpkg -i /tmp/kubernetes-cni-1.9.0.deb")
	d.says("CNI bridge plugin v"+version, about)
	d.sh("dpkg -r kubernetes-cni") // a node that is taken out keeps netcleat's
	d.says("CNI bridge plugin v"+version, about)
	d.sh("dpkg -i /tmp/kubernetes-cni-1.8.0.deb && /tmp/x/usr/lib/netcleat/netcleat install --uninstall /opt/cni/bin")
	d.says("CNI bridge plugin v1.9.1", about)
	d.says("", "dpkg-divert --list '*netcleat*'; dpkg --verify kubernetes-cni; find /opt/cni/bin -name '.netcleat*'")
}

// What is installed is what the checksums say.
func TestChecksums(t *testing.T) {
	needRoot(t)
	run(t, "sh", "-ec", "cd "+built(t)+" && sha256sum --check --quiet SHA256SUMS *.sha256")
	entries, err := os.ReadDir(built(t))
	must(t, err)
	sums, err := os.ReadFile(filepath.Join(built(t), "SHA256SUMS"))
	must(t, err)
	for _, e := range entries {
		if n := e.Name(); n != "SHA256SUMS" && !strings.HasSuffix(n, ".sha256") && !strings.Contains(string(sums), "  "+n+"\n") {
			t.Errorf("%s: no checksum", n)
		}
	}
}

// What kubectl creates comes in the order in which it needs it, with this version's
// image; and there are notes of the version.
func TestManifestAndNotes(t *testing.T) {
	needRoot(t)
	kinds := regexp.MustCompile(`(?m)^kind: .*|image: .*`).FindAllString(read(t, filepath.Join(built(t), "netcleat-kubernetes-v"+version+".yaml")), -1)
	want := []string{"kind: Namespace", "kind: DaemonSet", "image: " + image, "image: " + image}
	if !slices.Equal(kinds, want) {
		t.Errorf("the manifest has %q, want %q", kinds, want)
	}
	if notes := read(t, filepath.Join(built(t), "netcleat-v"+version+".md")); !strings.Contains(notes, "### Added\n") || strings.Contains(notes, "\n## ") {
		t.Errorf("notes: %s", notes)
	}
}
