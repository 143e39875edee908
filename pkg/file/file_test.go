package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/file"
)

func TestRead(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 4097, 100_000} {
		path := filepath.Join(t.TempDir(), "f")
		want := bytes.Repeat([]byte{'x'}, size)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := file.Read(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: read %d, %v", size, len(got), err)
		}
	}
	if _, err := file.Read("/proc/self/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that does not exist: %v", err)
	}
	if _, err := file.Read(t.TempDir()); err == nil {
		t.Error("a directory was read")
	}
}

func TestReadOfNoFile(t *testing.T) {
	pipe, link := filepath.Join(t.TempDir(), "pipe"), filepath.Join(t.TempDir(), "link")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Symlink("/dev/zero", link)); err != nil {
		t.Fatal(err)
	}
	if b, err := file.Read(pipe); len(b) > 0 {
		t.Errorf("a pipe: %q, %v", b, err)
	}
	if _, err := file.Read(link); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link: %v", err)
	}
}

func TestNames(t *testing.T) {
	dir, want := t.TempDir(), map[string]bool{}
	for i := range 1000 {
		name := fmt.Sprintf("a-name-that-fills-the-buffer-sooner-%d", i)
		want[name] = true
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	if err := file.Names(dir, func(name string) bool { delete(want, name); seen++; return false }); err != nil || len(want) > 0 || seen != 1000 {
		t.Errorf("saw %d names, missed %d, %v", seen, len(want), err)
	}
	seen = 0
	if err := file.Names(dir, func(string) bool { seen++; return seen == 3 }); err != nil || seen != 3 {
		t.Errorf("went on after enough: %d, %v", seen, err)
	}
	if err := file.Names(dir+"/x", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that does not exist: %v", err)
	}
}

// A file is replaced as a whole, and a failure leaves it and nothing else.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path, fresh := filepath.Join(dir, "f"), filepath.Join(dir, ".f")
	for _, want := range []string{"a longer text", "b"} {
		if err := file.Replace(path, fresh, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if b, err := file.Read(path); err != nil || string(b) != want {
			t.Errorf("%q, %v", b, err)
		}
	}
	if err := file.Replace(dir, fresh, nil); err == nil {
		t.Error("a directory was replaced")
	}
	if err := file.Replace(path, filepath.Join(dir, "none", "f"), nil); err == nil {
		t.Error("written into a directory that does not exist")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
