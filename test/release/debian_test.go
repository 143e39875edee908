// Package release has the tests of what a release consists of: the package in a
// Debian 12 of its own, the tarball in a node's directory, the image in
// containerd, and that two builds are the same.
package release

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// debian is a Debian 12 of its own, as debootstrap made it, with its own network,
// processes and mounts. What a test changes in it is lost with it.
type debian struct {
	t    *testing.T
	pid  int
	root string // as its own mount namespace has it
}

// system makes the file system: what is written is on top of Debian's, and lost at the end.
const system = `
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$2,upperdir=upper,workdir=work" root
mount -t proc proc root/proc
mount -t tmpfs tmpfs root/run
mount -t tmpfs tmpfs root/tmp
ip link set lo up
`

// furnish makes the system and waits until its standard input ends. crun refuses
// the hybrid layout of cgroups: a host that has it loses version 2.
const furnish = system + `
umount /sys/fs/cgroup/unified 2>/dev/null || true
mount -t proc proc /proc
mount --rbind /sys root/sys
mount --rbind /dev root/dev
mkdir -p root/run/netns root/run/lock
mount --bind root/run/netns root/run/netns
mount --make-shared root/run/netns
echo ready
cat
`

// boot makes the system and becomes its systemd, in the control group $3.
const boot = system + `
mkdir cgroup
mount -t cgroup2 cgroup2 cgroup
mkdir "cgroup/$3"
echo $$ >"cgroup/$3/cgroup.procs"
cd root
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs dev
for file in null zero full random urandom tty; do touch dev/$file; mount --bind /dev/$file dev/$file; done
mkdir dev/pts dev/shm host
pivot_root . host
umount -l /host
rmdir /host
echo ready
exec unshare --cgroup sh -ec '
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd'
`

// newDebian starts the system of the tree, see scripts/debian-root.
func newDebian(t *testing.T, tree string) debian {
	t.Helper()
	d := start(t, tree, furnish)
	d.root += "/root"
	d.configure()
	return d
}

// bootDebian starts the system with systemd as its first process, and waits until
// it has booted.
func bootDebian(t *testing.T, tree string) debian {
	t.Helper()
	d := start(t, tree, boot)
	d.root = "/"
	// Degraded where a service of podman's fails, which is not of interest here.
	d.sh("for try in $(seq 300); do systemctl is-system-running --wait | grep -q -e running -e degraded && exit; sleep 0.2; done; systemctl; exit 1")
	d.configure()
	return d
}

// start starts a script with namespaces of its own, which makes the system in
// root, and waits until it says so.
func start(t *testing.T, tree, script string) debian {
	t.Helper()
	needRoot(t)
	repo := repository(t)
	run(t, filepath.Join(repo, "scripts/debian-root"))
	dir := t.TempDir()
	group := "release" + strconv.Itoa(os.Getpid()) + "-" + filepath.Base(filepath.Dir(dir))
	cmd := exec.Command("sh", "-c", script, "sh", dir, filepath.Join(repo, "build/debian", tree), group)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := bed.RemoveCgroup(group); err != nil {
			t.Error(err)
		}
	})
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		t.Fatalf("the system does not start: %v", err)
	}
	return debian{t, cmd.Process.Pid, dir}
}

// configure has podman use CNI, and what works within namespaces.
func (d debian) configure() {
	d.t.Helper()
	d.write("/etc/containers/containers.conf", "[network]\nnetwork_backend = \"cni\"\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"crun\"\n")
	d.write("/etc/containers/storage.conf", "[storage]\ndriver = \"vfs\"\ngraphroot = \"/var/lib/containers/storage\"\nrunroot = \"/run/containers/storage\"\n")
}

// path is where the test finds a file of the system.
func (d debian) path(path string) string {
	return "/proc/" + strconv.Itoa(d.pid) + "/root" + d.root + path
}

func (d debian) write(path, content string) {
	d.t.Helper()
	must(d.t, os.MkdirAll(filepath.Dir(d.path(path)), 0o755))
	must(d.t, os.WriteFile(d.path(path), []byte(content), 0o644))
}

// put copies a file into the system.
func (d debian) put(from, to string) {
	d.t.Helper()
	content, err := os.ReadFile(from)
	must(d.t, err)
	must(d.t, os.MkdirAll(filepath.Dir(d.path(to)), 0o755))
	must(d.t, os.WriteFile(d.path(to), content, 0o755))
}

// cmd is a script for the system, not yet started.
func (d debian) cmd(script string) *exec.Cmd {
	cmd := exec.CommandContext(d.t.Context(), "nsenter", "-t", strconv.Itoa(d.pid), "-n", "-m", "-p", "-i", "-u", "--",
		"chroot", d.root, "sh", "-ec", script)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "HOME=/"}
	cmd.WaitDelay = time.Second // a child that went on has the pipes
	return cmd
}

// try runs a script and returns all that it prints.
func (d debian) try(script string) (string, error) {
	cmd := d.cmd(script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// sh runs a script that must succeed.
func (d debian) sh(script string) string {
	d.t.Helper()
	out, err := d.try(script)
	if err != nil {
		d.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(out)
}

// says wants what a script prints to be so.
func (d debian) says(want, script string) {
	d.t.Helper()
	if got := d.sh(script); got != want {
		d.t.Errorf("%s: want %q, got %q", script, want, got)
	}
}

// serve runs a container of podman that answers with its name on port 80.
func (d debian) serve(name, network string) {
	d.t.Helper()
	d.sh(`
		[ -d /srv/tree ] || {
			mkdir -p /srv/tree/bin /srv/tree/etc /srv/tree/proc /srv/tree/sys /srv/tree/dev /srv/tree/run /srv/tree/tmp
			cp /bin/busybox /srv/tree/bin/ && ln -s busybox /srv/tree/bin/sh
			echo root:x:0:0:root:/:/bin/sh >/srv/tree/etc/passwd
		}
		podman run --detach --cgroups=disabled --name=` + name + ` --network=` + network + ` --rootfs /srv/tree:O \
			busybox sh -c 'mkdir -p /tmp/www && echo ` + name + ` >/tmp/www/index.html && exec busybox httpd -f -h /tmp/www'`)
}

// reaches wants one container to reach another.
func (d debian) reaches(from, to string) {
	d.t.Helper()
	d.says(to, `
		to=$(podman inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' `+to+`)
		for try in 1 2 3 4 5 6 7 8 9; do # until its server listens
			podman exec `+from+` busybox wget -q -O - http://$to/ && exit
			podman exec `+from+` busybox sleep 1
		done
		exit 1`)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: run make test as root")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a program that must succeed, in the repository.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = repository(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	must(t, err)
	return dir
}
