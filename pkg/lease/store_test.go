package lease

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	first = netip.MustParseAddr("10.1.0.2")
	last  = netip.MustParseAddr("10.1.0.254")
	boot1 = Boot{ID: 1, Machine: 7}
	boot2 = Boot{ID: 2, Machine: 7}
)

// place returns a place of its own for the test.
func place(t testing.TB) Place {
	t.Helper()
	dir := t.TempDir()
	return Place{Dir: filepath.Join(dir, "leases", "net"), Index: filepath.Join(dir, "index"), Boot: boot1, Note: t.Logf}
}

// in opens the leases, runs fn and closes them.
func in(t testing.TB, p Place, fn func(*Store)) {
	t.Helper()
	s, err := Create(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	fn(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// take takes the next free address for each of the containers.
func take(t testing.TB, p Place, ids ...string) {
	t.Helper()
	in(t, p, func(s *Store) {
		for _, id := range ids {
			a, ok := s.Free(first, last)
			if !ok {
				t.Fatal("no address is free")
			}
			if err := s.Take(a, Owner{id, "eth0"}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// holders returns who holds what as text, as the files and as the index tell it.
func holders(t testing.TB, p Place) string {
	t.Helper()
	p.KeepOld = true
	s, err := View(context.Background(), p)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all, err := s.All()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	var out []string
	for _, l := range all {
		out = append(out, fmt.Sprintf("%s=%s/%s", l.Addr, l.Owner.ContainerID, l.Owner.IfName))
		if !s.IsHeld(l.Addr) {
			t.Errorf("the index does not know of %s", l.Addr)
		}
		of, err := s.Of(l.Owner)
		if err != nil || !l.Foreign && !slices.Contains(of, l) {
			t.Errorf("of %v: %v, %v: want %v among them", l.Owner, of, err, l)
		}
	}
	return strings.Join(out, " ")
}

func write(t testing.TB, p Place, name, content string) {
	t.Helper()
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.Dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("want %q\n got %q", want, got)
	}
}

// isTrusted reports whether the next call would use the index as it is.
func isTrusted(t testing.TB, p Place) bool {
	t.Helper()
	s := &Store{Place: p, dirfd: -1, lockfd: -1}
	if err := s.enter(context.Background()); err != nil {
		t.Fatal(err)
	}
	ok := s.loadIndex()
	if ok {
		_ = s.x.close()
	}
	if err := s.leave(); err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestIndexIsTrustedUntilSomebodyElseTouchesTheDirectory(t *testing.T) {
	write := func(p *Place, name, content string) { write(t, *p, name, content) }
	for what, touch := range map[string]func(*Place){
		"a lease of the reference": func(p *Place) { write(p, "10.1.0.9", "r\r\neth0") },
		"rm":                       func(p *Place) { must(t, os.Remove(filepath.Join(p.Dir, "10.1.0.2"))) },
		"a lost index":             func(p *Place) { must(t, os.RemoveAll(p.Index)) },
		"another boot":             func(p *Place) { p.Boot = boot2 },
		"a restored time": func(p *Place) {
			before := mtime(t, p.Dir)
			write(p, "10.1.0.8", "t\r\neth0")
			setMtime(t, p.Dir, before)
		},
		"a directory of the name": func(p *Place) {
			must(t, os.RemoveAll(p.Dir))
			write(p, "10.1.0.3", "n\r\neth0")
		},
		"a truncated time":          func(p *Place) { setMtime(t, p.Dir, mtime(t, p.Dir).Truncate(time.Second)) },
		"an index of another build": func(p *Place) { flip(t, *p, atVersion) },
		"a corrupt index":           func(p *Place) { flip(t, *p, atNodes) },
		"a cut index":               func(p *Place) { must(t, os.Truncate(p.indexFile(), headerSize+100)) },
		"an empty index":            func(p *Place) { must(t, os.Truncate(p.indexFile(), 0)) },
	} {
		t.Run(what, func(t *testing.T) {
			p := place(t)
			take(t, p, "a", "b")
			if !isTrusted(t, p) {
				t.Fatal("the index of an untouched directory is not used")
			}
			touch(&p)
			if isTrusted(t, p) {
				t.Error("the index is believed")
			}
			holders(t, p)
		})
	}
}

func mtime(t testing.TB, path string) time.Time {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	return fi.ModTime()
}

func setMtime(t testing.TB, path string, at time.Time) {
	t.Helper()
	must(t, os.Chtimes(path, time.Time{}, at))
}

func flip(t testing.TB, p Place, at int) {
	t.Helper()
	b, err := os.ReadFile(p.indexFile())
	must(t, err)
	b[at] ^= 0x55
	must(t, os.WriteFile(p.indexFile(), b, 0o600))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestReboots lets two boots pass, the index lost in the second.
func TestReboots(t *testing.T) {
	p := place(t)
	take(t, p, "a", "b")
	write(t, p, "10.1.0.200", "reference\r\neth0")
	write(t, p, "10.1.0.201", "legacy")
	want(t, holders(t, p), "10.1.0.2=a/eth0 10.1.0.3=b/eth0 10.1.0.200=reference/eth0 10.1.0.201=legacy/")
	backup := filepath.Join(t.TempDir(), "backup")
	copyDir(t, p.Dir, backup)

	p.Boot = boot2
	in(t, p, func(*Store) {})
	want(t, holders(t, p), "10.1.0.200=reference/eth0 10.1.0.201=legacy/")
	take(t, p, "c")

	p.Boot = Boot{ID: 3, Machine: 7}
	must(t, os.RemoveAll(p.Index))
	must(t, os.Remove(filepath.Join(p.Dir, "10.1.0.200")))
	in(t, p, func(*Store) {})
	want(t, holders(t, p), "10.1.0.201=legacy/")

	copyDir(t, backup, p.Dir)
	in(t, p, func(*Store) {})
	want(t, holders(t, p), "10.1.0.2=a/eth0 10.1.0.3=b/eth0 10.1.0.200=reference/eth0 10.1.0.201=legacy/")
}

// copyDir copies the files with all that cp can keep of them.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	must(t, os.MkdirAll(to, 0o755))
	names, err := os.ReadDir(from)
	must(t, err)
	for _, e := range names {
		content, err := os.ReadFile(filepath.Join(from, e.Name()))
		must(t, err)
		dst := filepath.Join(to, e.Name())
		must(t, os.WriteFile(dst, content, 0o600))
		var tag [64]byte
		if n, err := unix.Getxattr(filepath.Join(from, e.Name()), tagName, tag[:]); err == nil {
			must(t, unix.Setxattr(dst, tagName, tag[:n], 0))
		}
		setMtime(t, dst, mtime(t, filepath.Join(from, e.Name())))
	}
}

func TestLeasesThatAreNotReclaimed(t *testing.T) {
	for what, change := range map[string]func(*Place){
		"same boot":       func(*Place) {},
		"other machine":   func(p *Place) { p.Boot = Boot{ID: 2, Machine: 8} },
		"unknown machine": func(p *Place) { p.Boot = Boot{ID: 2} },
		"unknown boot":    func(p *Place) { p.Boot = Boot{Machine: 7} },
		"switched off":    func(p *Place) { p.Boot, p.KeepOld = boot2, true },
	} {
		t.Run(what, func(t *testing.T) {
			p := place(t)
			take(t, p, "a")
			change(&p)
			in(t, p, func(*Store) {})
			want(t, holders(t, p), "10.1.0.2=a/eth0")
			if p.KeepOld {
				p.KeepOld = false
				in(t, p, func(*Store) {})
				want(t, holders(t, p), "")
			}
		})
	}
}

func TestFilesThatAreAbsent(t *testing.T) {
	p := place(t)
	for name, content := range map[string]string{
		"10.1.0.2": "", "10.1.0.3": "\r\n ", "10.1.0.4": "\x00\x00\x00", "10.1.0.5": "\xff\xfe",
		"10.1.0.6": "reserved by hand", "10.1.0.7": "printer\r\neth\xff\x01", "fd00:0::1": "odd", "10.1.0.08": "odd",
	} {
		write(t, p, name, content)
	}
	take(t, p, "a", "b", "c", "d", "e")
	want(t, holders(t, p), "10.1.0.2=a/eth0 10.1.0.3=b/eth0 10.1.0.4=c/eth0 10.1.0.5=d/eth0 10.1.0.6=/ 10.1.0.7=printer/eth\xff\x01 10.1.0.8=e/eth0")
}

func TestWhatIsNoFileIsLeftAlone(t *testing.T) {
	p := place(t)
	must(t, os.MkdirAll(filepath.Join(p.Dir, "10.1.0.2"), 0o755))
	must(t, os.Symlink("/etc/passwd", filepath.Join(p.Dir, "10.1.0.3")))
	take(t, p, "a")
	want(t, holders(t, p), "10.1.0.2=/ 10.1.0.3=/ 10.1.0.4=a/eth0")
	in(t, p, func(s *Store) {
		if _, err := s.GiveUnless(nil); err != nil {
			t.Error(err)
		}
	})
	want(t, holders(t, p), "10.1.0.2=/ 10.1.0.3=/")
}

// TestEditedInPlace covers the one change that leaves no trace in the directory.
func TestEditedInPlace(t *testing.T) {
	p := place(t)
	take(t, p, "a", "b")
	write(t, p, "10.1.0.2", "x\r\neth0")
	in(t, p, func(s *Store) {
		if l, err := s.Of(Owner{"a", "eth0"}); err != nil || len(l) > 0 {
			t.Errorf("of a: %v, %v", l, err)
		}
		if err := s.Give(Lease{Addr: first, Owner: Owner{"a", "eth0"}}); err != nil {
			t.Error(err)
		}
	})
	want(t, holders(t, p), "10.1.0.2=x/eth0 10.1.0.3=b/eth0")
}

func TestFormat(t *testing.T) {
	p := place(t)
	old := unix.Umask(0o022)
	defer unix.Umask(old)
	in(t, p, func(s *Store) {
		must(t, s.Take(first, Owner{"a", "eth0"}))
		must(t, s.SetLast(0, netip.MustParseAddr("10.1.0.254")))
		must(t, s.Take(netip.MustParseAddr("fd00::5"), Owner{"a", "net1"}))
		must(t, s.SetLast(1, netip.MustParseAddr("fd00::5")))
	})
	in(t, p, func(s *Store) { must(t, s.SetLast(0, first)) })
	var got []string
	must(t, filepath.WalkDir(p.Dir, func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		fi, err := d.Info()
		must(t, err)
		var content []byte
		if fi.Mode().IsRegular() {
			content, err = os.ReadFile(path)
		}
		got = append(got, fmt.Sprintf("%s %o %q", d.Name(), fi.Mode().Perm(), content))
		return err
	}))
	want(t, strings.Join(got, "\n"), `net 755 ""
10.1.0.2 600 "a\r\neth0"
fd00::5 600 "a\r\nnet1"
last_reserved_ip.0 600 "10.1.0.2"
last_reserved_ip.1 600 "fd00::5"
lock 750 ""`)
}

func TestLockIsWaitedForAndItsHolderNamed(t *testing.T) {
	p := place(t)
	in(t, p, func(*Store) {
		soon, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err := Create(soon, p)
		if busy := (*BusyError)(nil); !errors.As(err, &busy) {
			t.Fatal(err)
		}
		if !strings.Contains(err.Error(), fmt.Sprintf("held by pid %d (", os.Getpid())) {
			t.Error(err)
		}
	})
	in(t, p, func(*Store) {})
}

func TestSweepRemovesTheIndexOfADirectoryThatIsGone(t *testing.T) {
	p, q := place(t), place(t)
	q.Index = p.Index
	take(t, p, "a")
	must(t, os.RemoveAll(p.Dir))
	take(t, q, "b")
	if _, err := os.Stat(p.indexFile()); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the index is still there")
	}
	if !isTrusted(t, q) {
		t.Error("the other's is not used")
	}
}

// TestManyLeasesOfOneOwner would take minutes if an owner's leases were looked
// through one by one.
func TestManyLeasesOfOneOwner(t *testing.T) {
	var all []found
	a := netip.MustParseAddr("10.0.0.0")
	for range 60000 {
		all = append(all, found{addr: a, content: []byte("x\r\neth0"), kind: held})
		a = a.Next()
	}
	x := (&Store{}).fill(all)
	if n := x.countTaken(netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.255.255.255")); n != 60000 {
		t.Error(n)
	}
}

func FuzzLeaseFile(f *testing.F) {
	f.Add([]byte("a\r\neth0"))
	f.Add([]byte(""))
	f.Add([]byte("a\neth0"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, content []byte) {
		o, ok := parseOwner(content)
		if ok && !o.owns(content) {
			t.Errorf("%q is %q's, and is not", content, o)
		}
		if again, ok2 := parseOwner([]byte(o.String())); ok && (again != o || !ok2) {
			t.Errorf("%q reads as %q and then %q", content, o, again)
		}
	})
}

// A lease that cannot be read while the index is made is not recorded as somebody
// else's: its owner gets an error, and gives it back when it can be read.
func TestUnreadLeases(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: make test-root")
	}
	p := place(t)
	take(t, p, "a", "b")
	path := filepath.Join(p.Dir, "10.1.0.2")
	must(t, unix.Mount(fmt.Sprintf("/proc/%d/mem", os.Getpid()), path, "", unix.MS_BIND, "")) // to read it is EIO
	unmount := sync.OnceFunc(func() { must(t, unix.Unmount(path, unix.MNT_DETACH)) })
	t.Cleanup(unmount)
	write(t, p, "foo", "") // somebody's change: the index is made again
	a, b := Owner{ContainerID: "a", IfName: "eth0"}, Owner{ContainerID: "b", IfName: "eth0"}
	in(t, p, func(s *Store) {
		if leases, err := s.Of(a); !errors.Is(err, ErrUnread) {
			t.Errorf("a: %v, %v", leases, err)
		}
		if leases, err := s.Of(b); err != nil || len(leases) != 1 {
			t.Errorf("b: %v, %v", leases, err)
		}
		if !s.IsHeld(netip.MustParseAddr("10.1.0.2")) {
			t.Error("its address is free")
		}
		if _, err := s.GiveUnless([]Owner{a, b}); !errors.Is(err, ErrUnread) {
			t.Errorf("GC: %v", err)
		}
		if err := s.Give(Lease{Addr: netip.MustParseAddr("10.1.0.2"), Owner: a}); !errors.Is(err, ErrUnread) {
			t.Errorf("give: %v", err)
		}
	})
	unmount()
	in(t, p, func(s *Store) {
		leases, err := s.Of(a)
		if err != nil || len(leases) != 1 {
			t.Errorf("a, when it can be read: %v, %v", leases, err)
		}
	})
}
