package netns

import (
	"errors"
	"maps"
	"os"
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
	p.link("self/ns/mnt", "mnt:[1]")
	p.link("1/ns/mnt", "mnt:[1]")
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
	p.file(dir+"/mountinfo", "")
}

func TestHeld(t *testing.T) {
	p := newProc(t)
	p.thread("7/task/7", "mnt:[1]", "net:[100]")
	p.thread("7/task/8", "mnt:[1]", "net:[101]") // one thread of a process
	p.link("7/task/8/fd/5", "net:[102]")         // a descriptor
	p.link("7/task/8/fd/6", "socket:[103]")      // says nothing
	p.thread("9/task/9", "mnt:[2]", "net:[100]") // another mount namespace
	p.file("9/task/9/mountinfo", "36 35 98:0 / / rw - ext4 /dev/root rw\n37 35 0:4 net:[104] /run/netns/a rw shared:1 - nsfs nsfs rw\n")
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
}

func TestHeldSaysWhereItIsBlind(t *testing.T) {
	for what, change := range map[string]func(*fakeProc){
		"another pid namespace": func(p *fakeProc) { p.relink("self/ns/pid", "pid:[4026532000]") },
		"a user namespace":      func(p *fakeProc) { p.relink("self/ns/user", "user:[4026532000]") },
		"another mounts":        func(p *fakeProc) { p.relink("self/ns/mnt", "mnt:[9]") },
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
