package dnsd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// Only a process that has the lock file open is told to end: the number of a daemon
// that was killed may be another process's by now.
func TestTerminate(t *testing.T) {
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	start := func(files ...*os.File) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "sleep", "1000")
		cmd.ExtraFiles = files
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd
	}
	stranger, holder := start(), start(lock)
	terminate(stranger.Process.Pid, lock)
	terminate(holder.Process.Pid, lock)
	if err := holder.Wait(); err == nil {
		t.Error("the holder ended by itself")
	}
	if err := stranger.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("a process without the lock was ended: %v", err)
	}
	_ = stranger.Process.Kill()
	if state, err := stranger.Process.Wait(); err != nil || state.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGKILL {
		t.Errorf("stranger: %v, %v: want the test's own SIGKILL", state, err)
	}
}

// TestLeaveCgroup: the daemon leaves the cgroups of who started it, in all hierarchies,
// whose runtime ends all that is in its own.
func TestLeaveCgroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: run make test as root")
	}
	mounts, err := cgroupMounts("/proc/self/mountinfo")
	must(t, err)
	if len(mounts) == 0 {
		t.Skip("no cgroups are mounted")
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	must(t, cmd.Start())
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	caller := fmt.Sprintf("netcleat-test-%d", os.Getpid())
	for _, m := range mounts {
		dir := filepath.Join(m, caller)
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue // read-only
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		_ = os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Appendln(nil, cmd.Process.Pid), 0o644) // cpuset takes none before it has processors
	}
	if before := cgroupsOf(t, cmd.Process.Pid); !strings.Contains(before, caller) {
		t.Skipf("no cgroup can be made here: %s", before)
	}
	must(t, leaveCgroups(cmd.Process.Pid, mounts))
	if after := cgroupsOf(t, cmd.Process.Pid); strings.Contains(after, caller) || !strings.Contains(after, ownCgroup) {
		t.Errorf("it is still in the caller's cgroup, or not in its own:\n%s", after)
	}
}

func cgroupsOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	must(t, err)
	return string(b)
}

// TestSocketActivation: systemd listens, and starts the daemon with the socket: who
// connects before is answered, also by the next daemon when the first one is killed.
func TestSocketActivation(t *testing.T) {
	w := newTown(t)
	must(t, os.MkdirAll(string(w.Journal()), 0o700))
	l, err := net.Listen("unix", dnsname.SocketOf(w.Journal()))
	must(t, err)
	defer func() { _ = l.Close() }()
	listening, err := l.(*net.UnixListener).File()
	must(t, err)
	defer func() { _ = listening.Close() }()
	web := named("web", 2)
	c := w.call(web)
	attached := make(chan error, 1)
	go func() { attached <- w.process(plugin.Add, c) }()
	for range 2 {
		cmd := w.activated(listening)
		if attached != nil {
			must(t, <-attached)
			attached = nil
		}
		w.becomes(asks{id: web.id, name: "web"}, "10.1.0.2")
		w.Must(plugin.Check, c)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
}

// activated starts the daemon as systemd does, with the descriptor 3, LISTEN_FDS and
// LISTEN_PID, which names the process itself.
func (w *town) activated(socket *os.File) *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command("sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec netcleat "$0"`, string(w.Journal()))
	cmd.Env = append(os.Environ(), "TEST_ACTIVATED=yes")
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stderr = os.Stderr
	must(w.t, w.Host.Do(cmd.Start))
	w.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}
