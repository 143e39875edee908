package netns

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeProc makes a proc file system out of links and mountinfo files.
type fakeProc struct {
	t   *testing.T
	dir string
}

func newProc(t *testing.T) *fakeProc {
	t.Helper()
	p := &fakeProc{t, t.TempDir()}
	p.link("self/ns/pid", initialPID)
	p.link("self/ns/user", initialUser)
	p.file("self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n")
	p.thread("1/task/1", "mnt:[1]", "net:[100]")
	return p
}

func (p *fakeProc) link(path, to string) {
	p.t.Helper()
	path = filepath.Join(p.dir, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(to, path)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *fakeProc) file(path, content string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, path), []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *fakeProc) thread(dir, mnt, net string) {
	p.t.Helper()
	p.link(dir+"/ns/mnt", mnt)
	p.link(dir+"/ns/net", net)
	p.link(dir+"/root", "/")
	p.file(dir+"/mountinfo", "")
}

func TestHeld(t *testing.T) {
	p := newProc(t)
	p.thread("7/task/7", "mnt:[1]", "net:[100]")
	p.thread("7/task/8", "mnt:[1]", "net:[101]") // one thread of a process
	p.link("7/task/8/fd/5", "net:[102]")         // a descriptor
	p.link("7/task/8/fd/6", "socket:[103]")      // says nothing
	p.thread("9/task/9", "mnt:[2]", "net:[100]") // another mount namespace
	p.file("9/task/9/mountinfo", "36 35 98:0 / / rw - ext4 /dev/root rw\n37 35 0:4 net:[104] /run/net\\040ns/a rw shared:1 - nsfs nsfs rw\n")
	p.link("9/task/9/fd/3", "mnt:[1]")
	if err := os.MkdirAll(filepath.Join(p.dir, "10/task/10"), 0o755); err != nil { // a process that ends
		t.Fatal(err)
	}
	got, err := Held(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint64{100, 101, 102, 104}, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Error(diff)
	}
	for ino, want := range map[uint64]string{101: "7/task/8/ns/net", 102: "7/task/8/fd/5", 104: "9/task/9/root/run/net ns/a"} {
		if got[ino] != filepath.Join(p.dir, want) {
			t.Errorf("net:[%d] is held at %s, want %s", ino, got[ino], want)
		}
	}
}

// The first thread of a mount namespace is chrooted, and sees no mounts: those
// that another one sees count.
func TestHeldLooksPastAChroot(t *testing.T) {
	p := newProc(t)
	p.thread("7/task/7", "mnt:[2]", "net:[100]")
	p.relink("7/task/7/root", "/srv/jail")
	p.thread("8/task/8", "mnt:[2]", "net:[100]")
	p.file("8/task/8/mountinfo", "37 35 0:4 net:[104] /run/netns/a rw shared:1 - nsfs nsfs rw\n")
	got, err := Held(p.dir)
	if err != nil || got[104] == "" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestHeldSaysWhereItIsBlind(t *testing.T) {
	for what, change := range map[string]func(*fakeProc){
		"another pid namespace": func(p *fakeProc) { p.relink("self/ns/pid", "pid:[4026532000]") },
		"a user namespace":      func(p *fakeProc) { p.relink("self/ns/user", "user:[4026532000]") },
		"no CAP_SYS_PTRACE":     func(p *fakeProc) { p.file("self/status", "CapEff:\t000001fffff7ffff\n") },
		"only a chroot":         func(p *fakeProc) { p.thread("7/task/7", "mnt:[2]", "net:[1]"); p.relink("7/task/7/root", "/srv") },
		"mounts of no process":  func(p *fakeProc) { p.link("1/task/1/fd/3", "mnt:[9]") },
		"no proc at all":        func(p *fakeProc) { p.dir = filepath.Join(p.dir, "nothing") },
	} {
		t.Run(what, func(t *testing.T) {
			p := newProc(t)
			change(p)
			if got, err := Held(p.dir); !errors.Is(err, ErrBlind) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func (p *fakeProc) relink(path, to string) {
	p.t.Helper()
	if err := os.Remove(filepath.Join(p.dir, path)); err != nil {
		p.t.Fatal(err)
	}
	p.link(path, to)
}

// A mount namespace whose only process is chrooted holds a namespace.
func TestHeldEntersAMountNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: make test-root")
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-c",
		`touch "$0/ns" && unshare --net="$0/ns" stat -Lc %i /proc/self/ns/net && exec chroot "$0/.." "./${0##*/}/wait"`, t.TempDir())
	dir := cmd.Args[len(cmd.Args)-1]
	build(t, filepath.Join(dir, "wait"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ino uint64
	var ready string
	if _, err := fmt.Fscan(out, &ino, &ready); err != nil {
		t.Fatal(err)
	}
	p := newProc(t)
	for _, pid := range []int{os.Getpid(), cmd.Process.Pid} {
		p.link(fmt.Sprint(pid), fmt.Sprintf("/proc/%d", pid))
	}
	held, err := Held(p.dir)
	if err != nil {
		t.Error(err)
	}
	if held[ino] == "" {
		t.Errorf("net:[%d] is mounted in the mount namespace of a chrooted process, and was not seen", ino)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Error(err)
	}
}

// build makes a program that links nothing, says that it runs, and waits for its
// input to end.
func build(t *testing.T, path string) {
	t.Helper()
	src := filepath.Join(t.TempDir(), "main.go")
	err := os.WriteFile(src, []byte("package main\nimport (\"io\"; \"os\")\nfunc main() { os.Stdout.WriteString(\"ready\\n\"); io.Copy(io.Discard, os.Stdin) }\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
