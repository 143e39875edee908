package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is one of the hosts. Its way to the LAN is up0.
type Host struct {
	Name  string
	Addr  netip.Addr // on the LAN
	lab   *Lab
	dir   string // what a reboot does not clear, outside the host
	space *space
}

const furnishHost = `
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir "$2/lib"
mount --bind "$2/lib" /var/lib
mkdir -p /run/netns /run/lock /run/cni /var/lib/cni
mount --bind /run/netns /run/netns
mount --make-shared /run/netns
cp -a /etc "$2/etc"
rm -rf "$2/etc/cni" "$2/etc/netcleat"
mkdir -p "$2/etc/cni/net.d" "$2/etc/netcleat"
mount --bind "$2/etc" /etc
umount -R /sys/fs/cgroup 2>/dev/null || true # daemons leave the machine's as they are
echo "$1" >/proc/sys/kernel/hostname
ip link set lo up
echo ready
cat`

// addHost makes the n-th host and connects it with the LAN.
func (l *Lab) addHost(ctx context.Context, n int) (err error) {
	h := &Host{Name: fmt.Sprint("h", n), Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + n)}), lab: l}
	h.dir = filepath.Join(l.dir, h.Name)
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		return err
	}
	kinds := uintptr(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	if h.space, err = hold(furnishHost, kinds, h.Name, h.dir); err != nil {
		return err
	}
	l.Hosts = append(l.Hosts, h)
	if err := l.Router(ctx, "sh", "-ec", fmt.Sprintf(`
		ip link add %[1]s type veth peer name up0 netns %[2]d
		ip link set %[1]s master lan up`, h.Name, h.space.pid())); err != nil {
		return err
	}
	_, err = h.Sh(ctx, fmt.Sprintf(`
		ip addr add %s/24 dev up0
		ip addr add 2001:db8::%d/64 dev up0 nodad
		ip link set up0 up
		ip route add default via 192.0.2.2`, h.Addr, 10+n))
	return err
}

// Run runs a program on the host and returns what it prints.
func (h *Host) Run(ctx context.Context, argv ...string) (string, error) {
	return output(h.space.command(ctx, argv...))
}

// Sh runs a script on the host.
func (h *Host) Sh(ctx context.Context, script string) (string, error) {
	return h.Run(ctx, "sh", "-ec", script)
}

// Netcleat runs the operator's command.
func (h *Host) Netcleat(ctx context.Context, args ...string) (string, error) {
	return h.Run(ctx, append([]string{h.lab.netcleat}, args...)...)
}

// Path is where a file of the host is for this process.
func (h *Host) Path(path string) string {
	return filepath.Join("/proc", strconv.Itoa(h.space.pid()), "root", path)
}

// Write writes a file of the host that is root's alone, and the directories above it.
func (h *Host) Write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(h.Path(path)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(h.Path(path), []byte(content), 0o600)
}

// Start starts a service, which has a name to kill it by.
func (h *Host) Start(ctx context.Context, name string, argv ...string) error {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	log := filepath.Join(h.dir, name)
	_, err := h.Sh(ctx, fmt.Sprintf(`sh -c 'echo $$ >%[1]s.pid; exec "$@"' sh %[2]s </dev/null >>%[1]s.log 2>&1 &`, log, strings.Join(quoted, " ")))
	return err
}

// Kill kills a service and waits for its end.
func (h *Host) Kill(ctx context.Context, name string) error {
	return h.signal(ctx, name, `kill -9 $pid; while kill -0 $pid 2>/dev/null; do sleep 0.02; done`)
}

// Suspend stops a service as SIGSTOP does; Resume continues it.
func (h *Host) Suspend(ctx context.Context, name string) error {
	return h.signal(ctx, name, `kill -STOP $pid`)
}

// Resume continues a suspended service.
func (h *Host) Resume(ctx context.Context, name string) error {
	return h.signal(ctx, name, `kill -CONT $pid`)
}

func (h *Host) signal(ctx context.Context, name, script string) error {
	_, err := h.Sh(ctx, fmt.Sprintf("pid=$(cat %s.pid)\n%s", filepath.Join(h.dir, name), script))
	return err
}

// Log is what a service has said.
func (h *Host) Log(name string) string {
	b, err := os.ReadFile(filepath.Join(h.dir, name+".log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Cut takes the host off the LAN; Join brings it back.
func (h *Host) Cut(ctx context.Context) error {
	return h.lab.Router(ctx, "ip", "link", "set", h.Name, "down")
}

// Join brings the host back to the LAN.
func (h *Host) Join(ctx context.Context) error {
	return h.lab.Router(ctx, "ip", "link", "set", h.Name, "up")
}

// Reboot has the host go through what a boot changes: no process, container and file
// in /run is left, and the kernel names another boot. Services are not started.
func (h *Host) Reboot(ctx context.Context) error {
	_, err := h.Sh(ctx, `
		for p in /proc/[0-9]*; do
			p=${p#/proc/}
			read -r name </proc/$p/comm || continue
			[ $p = 1 ] || [ $p = $$ ] || [ "$name" = cat ] || kill -9 $p
		done 2>/dev/null
		for ns in $(ip netns | sed 's/ .*//'); do ip netns del $ns; done
		find /run -mindepth 1 -maxdepth 1 ! -name netns ! -name lock -exec rm -rf {} +
		mkdir -p /run/cni
		cat /proc/sys/kernel/random/uuid >`+h.dir+`/boot_id
		umount /proc/sys/kernel/random/boot_id 2>/dev/null || true
		mount --bind `+h.dir+`/boot_id /proc/sys/kernel/random/boot_id`)
	return err
}
