package netns_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Symlink("/proc/self/ns/net", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		text   string
		absent bool
	}{
		"/proc/self/ns/net":          {},
		filepath.Join(dir, "link"):   {},
		"":                           {"no such file", true},
		"/run/netns/none":            {"no such file", true},
		"/proc/4194304999/ns/net":    {"no such file", true},
		"/etc/hostname":              {"unknown FS magic", true},
		dir:                          {"unknown FS magic", true},
		fifo:                         {"unknown FS magic", true},
		"/dev/null":                  {"unknown FS magic", true},
		"/etc/hostname/x":            {"not a directory", false},
		"/proc/self/ns/mnt":          {"not a network namespace", false},
		strings.Repeat("/long", 999): {"file name too long", false},
	} {
		n, err := netns.Open(path)
		if want.text == "" {
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			err = n.Close()
		}
		if want.text == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want.text) || errors.Is(err, fs.ErrNotExist) != want.absent {
			t.Errorf("%.40s: %v, want %q, absent %v", path, err, want.text, want.absent)
		}
	}
}

// identity returns the identity of a new namespace, which dies with its thread.
func identity(t *testing.T) (id netns.ID) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		n, err := netns.Open(netns.Own)
		if err == nil {
			err = errors.Join(n.Cookie(), n.Close())
			id = n.ID
		}
		done <- err
	}()
	err := <-done
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN: run it as root (make test)")
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// The kernel gives inode numbers again; the cookie tells the namespaces apart.
func TestSameByCookie(t *testing.T) {
	a := identity(t)
	if a.Cookie == 0 {
		t.Skip("kernel without namespace cookies (before 5.14)")
	}
	b := netns.ID{Dev: a.Dev, Ino: a.Ino, Cookie: a.Cookie + 1}
	old := netns.ID{Dev: a.Dev, Ino: a.Ino}
	for _, c := range []struct {
		a, b netns.ID
		same bool
	}{
		{a, a, true},
		{a, b, false},
		{a, old, true},
		{old, a, true},
		{a, netns.ID{Dev: a.Dev, Ino: a.Ino + 1, Cookie: a.Cookie}, false},
		{netns.ID{}, a, false},
	} {
		if c.a.Same(c.b) != c.same {
			t.Errorf("%v same %v: want %v", c.a, c.b, c.same)
		}
	}
	seen := map[uint64]bool{}
	for range 20 {
		id := identity(t)
		if seen[id.Cookie] {
			t.Errorf("cookie %d twice", id.Cookie)
		}
		seen[id.Cookie] = true
	}
}

// Is tells a namespace from a later one with its inode number, and from none.
func TestIs(t *testing.T) {
	w := nltest.New(t)
	n, err := netns.Open(w.Path)
	if err == nil {
		err = n.Cookie()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	later := n.ID
	later.Cookie++
	for _, c := range []struct {
		path string
		id   netns.ID
		is   bool
	}{
		{w.Path, n.ID, true},
		{w.Path, netns.ID{Dev: n.ID.Dev, Ino: n.ID.Ino}, true},
		{w.Path, later, n.ID.Cookie == 0},
		{w.Path, netns.ID{}, false},
		{"/nonexistent", n.ID, false},
	} {
		if got := netns.Is(c.path, c.id); got != c.is {
			t.Errorf("%s is %v: %v", c.path, c.id, got)
		}
	}
}

// Do comes back, also when fn fails or panics.
func TestDo(t *testing.T) {
	bed := nltest.New(t)
	at := func() netns.ID {
		id, err := netns.Identify(netns.Own)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	home := at()
	oops := errors.New("oops")
	err := bed.Sandbox.Do(func() error {
		if at() != bed.Sandbox.ID {
			t.Error("not inside")
		}
		return oops
	})
	if !errors.Is(err, oops) || at() != home {
		t.Errorf("%v, home %v", err, at() == home)
	}
	func() {
		defer func() { _ = recover() }()
		_ = bed.Sandbox.Do(func() error { panic("oh") })
	}()
	if at() != home {
		t.Error("a panic keeps the thread inside")
	}
	same, err := netns.Same(bed.Path, netns.Own)
	if same || err != nil {
		t.Errorf("the sandbox is the host: %v %v", same, err)
	}
}
