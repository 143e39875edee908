package netns

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A namespace exists as long as a socket is in it, and no longer.
func TestExists(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: make test-root")
	}
	own, err := Identify(Own)
	if err != nil {
		t.Fatal(err)
	}
	if there, err := Exists(own); errors.Is(err, ErrUnsupported) && own.Cookie == 0 {
		t.Skip("needs Linux 6.18")
	} else if err != nil || !there {
		t.Errorf("the own namespace exists: %t, %v", there, err)
	}
	id, socket := socketAlone(t)
	if there, err := Exists(id); err != nil || !there {
		t.Errorf("one with a socket in it exists: %t, %v", there, err)
	}
	ns, err := Reopen(id)
	if err != nil {
		t.Fatal(err)
	}
	if !ns.ID.Same(id) || ns.ID.Cookie != id.Cookie {
		t.Errorf("reopened %v, not %v", ns.ID, id)
	}
	if err := errors.Join(ns.Close(), unix.Close(socket)); err != nil {
		t.Fatal(err)
	}
	if _, err := Reopen(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reopened one that nothing holds: %v", err)
	}
	if there, err := Exists(id); err != nil || there {
		t.Errorf("one that nothing holds exists: %t, %v", there, err)
	}
	later := own
	later.Cookie += 1 << 40
	if there, err := Exists(later); err != nil || there {
		t.Errorf("another one with the same number exists: %t, %v", there, err)
	}
}

func TestExistsNeedsTheCookie(t *testing.T) {
	if there, err := Exists(ID{Dev: 4, Ino: 4026531840}); there || !errors.Is(err, ErrUnsupported) {
		t.Errorf("%t, %v", there, err)
	}
}

// socketAlone returns a namespace that nothing but a socket holds.
func socketAlone(t *testing.T) (id ID, fd int) {
	t.Helper()
	runtime.LockOSThread()
	back, err := Open(Own)
	if err == nil {
		err = unix.Unshare(unix.CLONE_NEWNET)
	}
	if err == nil {
		id, err = Identify(Own)
	}
	if err == nil {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err == nil {
		err = unix.Setns(back.Fd(), unix.CLONE_NEWNET)
	}
	if err != nil {
		t.Fatal(err)
	}
	runtime.UnlockOSThread()
	if err := back.Close(); err != nil {
		t.Fatal(err)
	}
	return id, fd
}
