// Package bed gives a story with a real runtime a host of its own, plugins to
// call, file systems for containers, and peers to ask.
//
// The host has its own network, mounts and processes: /run, /var/lib and
// /etc/cni are empty, and what a runtime leaves running ends with the story.
package bed

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Host is where a story happens.
type Host struct {
	Dir     string // for the runtime's own files; short, as the paths of sockets must be
	Plugins string // the plugins' directory
	t       testing.TB
	ctx     context.Context
	built   builds
	cache   string // the runtime's, as the test finds it
	attr    syscall.SysProcAttr
	enter   []string // of nsenter
	pid     int
	before  []string
	rest    []func() error // what to do when the host's processes have ended
}

// after has something done when the host's processes have ended.
func (h *Host) after(do func() error) { h.rest = append(h.rest, do) }

// furnish makes the host and waits until its standard input ends, which it does
// when the test's process ends, however that ends.
//
// crun refuses the hybrid layout of cgroups: a host that has it loses version 2.
const furnish = `
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
[ ! -d /etc/cni ] || mount -t tmpfs tmpfs /etc/cni
mkdir -p /run/netns /run/lock /var/lib/cni
mount --bind /run/netns /run/netns
mount --make-shared /run/netns
umount /sys/fs/cgroup/unified 2>/dev/null || true
ip link set lo up
ip netns add lan
ip link add lan0 type veth peer name lan0 netns lan
ip addr add 192.0.2.1/24 dev lan0
ip addr add 2001:db8::1/64 dev lan0 nodad
ip link set lan0 up
ip -n lan addr add 192.0.2.2/24 dev lan0
ip -n lan addr add 2001:db8::2/64 dev lan0 nodad
ip -n lan link set lan0 up
echo ready
cat
`

// New makes a host that has the programs, or says that they are missing. The
// host has a neighbour in the namespace lan, 192.0.2.2 and 2001:db8::2, that
// knows no way to the containers.
func New(t testing.TB, programs ...string) *Host {
	t.Helper()
	h := newHost(t, programs)
	h.open()
	h.cache = h.Path("/var/lib/cni")
	return h
}

// NewRootless makes a host as New does whose root is a user of the machine that
// may write nothing but /run, /var/lib and /tmp.
func NewRootless(t testing.TB, programs ...string) *Host {
	t.Helper()
	h := newHost(t, programs)
	const nobody = 65534
	h.attr.Cloneflags |= unix.CLONE_NEWUSER
	h.attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
	h.attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
	h.attr.GidMappingsEnableSetgroups = true
	h.attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
	h.enter = []string{"-U", "-S", "0", "-G", "0"}
	h.must(os.Chmod(h.Dir, 0o755))
	h.must(output("cp", h.built.peer, h.Dir+"/peer"))
	h.built.peer = h.Dir + "/peer"
	h.cache = h.Dir + "/cache" // the test is a stranger in the host's /var/lib/cni
	h.open()
	return h
}

func newHost(t testing.TB, programs []string) *Host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: run make test as root")
	}
	b := build(t)
	// The operator's command is on PATH, where dnsname finds its daemon.
	t.Setenv("PATH", filepath.Dir(b.netcleat)+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is missing: make install-deps", p)
		}
	}
	dir, err := os.MkdirTemp("", "bed") //nolint:usetesting // the path of a socket may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	h := &Host{Dir: dir, Plugins: dir + "/bin", t: t, ctx: t.Context(), built: b}
	h.attr.Cloneflags = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC
	return h
}

func (h *Host) open() {
	h.t.Helper()
	h.start()
	h.installPlugins()
	h.before = h.state()
}

// start starts the process that holds the host's namespaces, the first of its
// process namespace: with it all others end.
func (h *Host) start() {
	h.t.Helper()
	cmd := exec.Command("sh", "-c", furnish)
	cmd.SysProcAttr = &h.attr
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	h.must(err)
	stdout, err := cmd.StdoutPipe()
	h.must(err)
	h.must(cmd.Start())
	h.pid = cmd.Process.Pid
	h.t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for _, do := range h.rest {
			if err := do(); err != nil {
				h.t.Error(err)
			}
		}
	})
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		h.t.Fatalf("host: %v", err)
	}
}

func (h *Host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// Cmd is a program on the host, not yet started.
func (h *Host) Cmd(argv ...string) *exec.Cmd {
	enter := slices.Concat(h.enter, []string{"-t", strconv.Itoa(h.pid), "-n", "-m", "-p", "-i", "--wd=" + h.Dir, "--"}, argv)
	cmd := exec.CommandContext(h.ctx, "nsenter", enter...)
	cmd.WaitDelay = 5 * time.Second // a child that went on has the pipes
	return cmd
}

// Try runs a program on the host and returns all that it prints.
func (h *Host) Try(argv ...string) (string, error) {
	cmd := h.Cmd(argv...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// Run runs a program that must succeed, and returns what it prints.
func (h *Host) Run(argv ...string) string {
	h.t.Helper()
	out, err := h.Try(argv...)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// Sh runs a script that must succeed.
func (h *Host) Sh(script string) string {
	h.t.Helper()
	return h.Run("sh", "-ec", script)
}

// Path is where the test finds a file of the host.
func (h *Host) Path(path string) string { return "/proc/" + strconv.Itoa(h.pid) + "/root" + path }

// Write writes a file of the host, with the directories above it.
func (h *Host) Write(path, content string) {
	h.t.Helper()
	dir, _ := cutLast(h.Path(path))
	h.must(os.MkdirAll(dir, 0o755))
	h.must(os.WriteFile(h.Path(path), []byte(content), 0o644))
}

func cutLast(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:i], path[i+1:]
}

// patience is long: a busy machine is slow.
const patience = 4 * time.Minute

// Wait polls until the condition holds, ever less often, and fails where that takes
// too long.
func (h *Host) Wait(what string, holds func() bool) {
	h.t.Helper()
	deadline := time.After(patience)
	for pause := 50 * time.Millisecond; !holds(); pause = min(pause*5/4, 400*time.Millisecond) {
		select {
		case <-deadline:
			h.t.Fatalf("waited in vain: %s", what)
		case <-time.After(pause):
		}
	}
}
