package hostlocal_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// touching are the system calls that change files, or stand between two that do.
var touching = []uint64{
	unix.SYS_OPENAT, unix.SYS_CLOSE, unix.SYS_FLOCK, unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_FTRUNCATE, unix.SYS_FSETXATTR,
	unix.SYS_UNLINKAT, renameat, unix.SYS_RENAMEAT2, unix.SYS_MKDIRAT, unix.SYS_UTIMENSAT, unix.SYS_MUNMAP, unix.SYS_GETDENTS64, unix.SYS_EXIT_GROUP,
}

// killAt starts cmd and kills it when it is about to make its n-th touching
// system call after the marker. It returns false where it came to its end first.
func killAt(t *testing.T, cmd *exec.Cmd, n int) bool {
	t.Helper()
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	stdin, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer stdin.Close()
	_, err = stdin.ReadFrom(cmd.Stdin)
	must(t, err)
	_, err = stdin.Seek(0, 0)
	must(t, err)
	cmd.Stdin = stdin
	must(t, cmd.Start())
	tr := &tracer{t: t, pid: cmd.Process.Pid, at: n}
	killed := tr.run()
	_ = cmd.Process.Release()
	return killed
}

// tracer follows all threads of a process from one system call to the next.
type tracer struct {
	t       *testing.T
	pid, at int
	begun   bool
}

func (tr *tracer) run() (killed bool) {
	var ws unix.WaitStatus
	_, err := unix.Wait4(tr.pid, &ws, unix.WALL, nil)
	must(tr.t, err)
	must(tr.t, unix.PtraceSetOptions(tr.pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL))
	must(tr.t, unix.PtraceSyscall(tr.pid, 0))
	for {
		tid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		if errors.Is(err, unix.ECHILD) {
			return killed
		}
		must(tr.t, err)
		if ws.Exited() || ws.Signaled() {
			if tid == tr.pid {
				return killed
			}
			continue
		}
		if !killed && tr.isNext(tid, ws) {
			killed = true
			must(tr.t, unix.Kill(tr.pid, unix.SIGKILL))
		}
		tr.goOn(tid, ws)
	}
}

// isNext reports whether the thread stops before the system call to kill at.
func (tr *tracer) isNext(tid int, ws unix.WaitStatus) bool {
	if ws.StopSignal() != unix.SIGTRAP|0x80 {
		return false
	}
	nr, entry := tr.syscall(tid)
	if !entry {
		return false
	}
	if nr == marker {
		tr.begun = true
	}
	if !tr.begun || !slices.Contains(touching, nr) {
		return false
	}
	tr.at--
	return tr.at == 0
}

// syscall asks which system call the thread makes, and whether it enters it.
func (tr *tracer) syscall(tid int) (nr uint64, entry bool) {
	const getSyscallInfo, opEntry = 0x420e, 1
	var info [88]byte
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), uintptr(len(info)), uintptr(unsafe.Pointer(&info[0])), 0, 0)
	if errno != 0 {
		return 0, false // the thread has been killed
	}
	return *(*uint64)(unsafe.Pointer(&info[24])), info[0] == opEntry
}

func (tr *tracer) goOn(tid int, ws unix.WaitStatus) {
	sig := 0
	if s := ws.StopSignal(); s != unix.SIGTRAP|0x80 && s != unix.SIGTRAP && s != unix.SIGSTOP {
		sig = int(s)
	}
	if err := unix.PtraceSyscall(tid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		tr.t.Fatal(err)
	}
}

// TestKilledAtEverySystemCall kills ADD and DEL before each of their system
// calls in turn. The next calls must work, no address may be held twice, and of
// the killed call at most one lease may be left, which its DEL or GC ends.
func TestKilledAtEverySystemCall(t *testing.T) {
	for _, verb := range []string{plugin.Add, plugin.Del} {
		for _, index := range []string{"with an index", "without"} {
			t.Run(verb+" "+index, func(t *testing.T) {
				n := 1
				for ; killOne(t, verb, index == "without", n) && !t.Failed(); n++ {
				}
				if n < 8 {
					t.Errorf("only %d system calls: the tracer misses them", n)
				}
				t.Logf("killed at %d system calls", n-1)
			})
		}
	}
}

func killOne(t *testing.T, verb string, lost bool, n int) (killed bool) {
	t.Helper()
	h := newHost(t, `"subnet":"10.1.0.0/28"`)
	for _, id := range []string{"a", "b", "c"} {
		h.do(plugin.Add, id)
	}
	h.do(plugin.Del, "b")
	if verb == plugin.Del {
		h.do(plugin.Add, "victim")
	}
	must(t, os.WriteFile(filepath.Join(h.leases(), "10.1.0.9"), nil, 0o600))
	if lost {
		must(t, os.RemoveAll(filepath.Join(h.dir, "journal")))
	} else {
		h.do(plugin.Del, "nobody")
	}
	killed = killAt(t, h.command(verb, "victim"), n)
	after := fmt.Sprintf("%s killed at %d: %v", verb, n, h.files())
	h.judge(after)
	left := h.holds("victim")
	if len(left) > 1 || verb == plugin.Add && !killed && len(left) != 1 || verb == plugin.Del && !killed && len(left) > 0 {
		t.Errorf("%s\nvictim holds %v", after, left)
	}
	if n%2 == 0 {
		h.do(plugin.GC, `{"containerID":"a","ifname":"eth0"},{"containerID":"c","ifname":"eth0"}`)
	} else {
		h.do(plugin.Del, "victim")
	}
	if left := h.holds("victim"); len(left) > 0 {
		t.Errorf("%s\nvictim still holds %v", after, left)
	}
	if n%4 == 1 {
		h.fillUp(after)
	}
	return killed
}

// judge checks that each file is a lease or empty.
func (h *host) judge(after string) {
	h.t.Helper()
	for name, content := range h.files() {
		if content != "" && !strings.HasSuffix(content, "\r\neth0") {
			h.t.Errorf("%s\n%s: half written: %q", after, name, content)
		}
	}
	for _, id := range []string{"a", "c"} {
		if n := len(h.holds(id)); n != 1 {
			h.t.Errorf("%s\n%s holds %d addresses", after, id, n)
		}
	}
}

func (h *host) holds(id string) (ips []string) {
	h.t.Helper()
	for name, content := range h.files() {
		if content == id+"\r\neth0" {
			ips = append(ips, name)
		}
	}
	return ips
}

// fillUp adds containers until the range is full: of 13 addresses a and c have
// two.
func (h *host) fillUp(after string) {
	h.t.Helper()
	for i := range 11 {
		before := h.files()
		ip := h.do(plugin.Add, fmt.Sprint("f", i))
		if before[ip] != "" {
			h.t.Errorf("%s\n%s was given away twice", after, ip)
		}
	}
	if a := h.run(h.command(plugin.Add, "one-more")); a.code != 103 {
		h.t.Errorf("%s\nfull range: code %d %s", after, a.code, a.ip)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
