package release

import (
	"path/filepath"
	"strings"
	"testing"
)

// rules are the host's, without counters.
const rules = `nft list ruleset | sed 's/counter packets [0-9]* bytes [0-9]*/counter/' | sort`

// pids are the first processes of both daemons, which must run.
const pids = `
for service in netcleat-dhcp netcleat-dns; do
	systemctl is-active --quiet $service || { systemctl status $service; exit 1; }
	systemctl show --property MainPID --value $service
done`

// With systemd as the first process: it starts the daemons, and again when they are
// killed and when the package is upgraded; rules are restored whatever is done to
// nftables' service; and removing the package ends all of it.
func TestServices(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := bootDebian(t, "podman")
	d.put(deb(t), "/tmp/netcleat.deb")
	d.repack("1.10.1")
	d.write("/etc/nftables.conf", "flush ruleset\n")
	d.sh("rm /usr/sbin/policy-rc.d && dpkg -i /tmp/netcleat.deb")
	if out := d.sh("netcleat install --enable dhcp,dns,reconcile"); strings.Contains(out, "next boot") {
		t.Errorf("--enable: %s", out)
	}
	d.says(strings.TrimSpace(strings.Repeat("active\n", 5)), "systemctl is-active netcleat-dhcp.socket netcleat-dhcp netcleat-dns.socket netcleat-dns netcleat-reconcile-reload")

	d.sh("podman network create web")
	d.serve("one", "web")
	d.serve("two", "web")
	d.named("two")
	before := d.sh(rules + " | tee /srv/rules")
	if !strings.Contains(before, "masquerade") {
		t.Errorf("rules: %s", before)
	}
	for _, verb := range []string{"start", "restart", "reload", "stop", "start"} { // all of them flush the rules
		d.sh("systemctl " + verb + " nftables")
		if verb != "stop" {
			d.sh("for try in $(seq 100); do " + rules + " | cmp -s - /srv/rules && exit; sleep 0.2; done; echo after " + verb + ":; " + rules + "; exit 1")
		}
	}
	d.reaches("one", "two")

	d.sh("(" + pids + ") >/srv/first && kill -9 $(cat /srv/first)")
	d.others("/srv/first", "/srv/second")
	d.named("two")
	d.sh("dpkg -i /tmp/netcleat-1.10.1.deb")
	d.others("/srv/second", "/srv/third")
	d.named("two")

	d.sh("podman rm --force --time=0 one two && dpkg --remove --force-depends netcleat")
	d.says("", "systemctl list-units --all --no-legend 'netcleat*'; systemctl list-units --failed --no-legend 'netcleat*'; ls -l /proc/[0-9]*/exe 2>/dev/null | grep netcleat || true")
}

// others waits until both daemons run, other processes than those in the file old,
// and writes theirs into the file now.
func (d debian) others(old, now string) {
	d.t.Helper()
	d.sh("for try in $(seq 100); do (" + pids + ") >" + now + " && ! grep -q -x -f " + old + " " + now + " && exit; sleep 0.2; done; cat " + old + " " + now + "; exit 1")
}

// named wants the container one to reach another by its name.
func (d debian) named(other string) {
	d.t.Helper()
	d.says(other, "podman exec one busybox wget -q -O - http://"+other+"/")
}

// The tarball as docs/install.md has it, with services, and all the way back.
func TestServicesOfTarball(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := bootDebian(t, "base")
	name := "netcleat-linux-amd64-v" + version + ".tgz"
	d.put(filepath.Join(built(t), name), "/srv/"+name)
	d.sh(`cd /srv
		tar -xzf netcleat-linux-amd64-v` + version + `.tgz
		install -D -t /usr/local/lib/netcleat netcleat-v` + version + `/cni netcleat-v` + version + `/netcleat
		ln -sf ../lib/netcleat/netcleat /usr/local/bin/netcleat
		netcleat install --backup /opt/cni/bin`)
	d.says("CNI bridge plugin v"+version, "/opt/cni/bin/bridge 2>&1 | head -n 1 || true")
	d.sh("netcleat install --enable dhcp")
	d.sh(`echo '{"cniVersion":"1.1.0","name":"n","type":"dhcp","ipam":{"type":"dhcp"}}' | CNI_COMMAND=STATUS CNI_PATH=/opt/cni/bin /opt/cni/bin/dhcp`)
	d.says("active\nactive", "systemctl is-active netcleat-dhcp.socket netcleat-dhcp")
	d.says("", "systemd-analyze verify /etc/systemd/system/netcleat-*.* 2>&1")
	d.sh("netcleat install --uninstall /opt/cni/bin")
	d.says("", "systemctl list-units --all --no-legend 'netcleat*'; systemctl list-units --failed --no-legend 'netcleat*'; ls -A /opt/cni/bin /etc/systemd/system | grep netcleat || true")
}
