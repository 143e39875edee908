package netns

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrBlind says that this process cannot see everything that may hold a
// namespace: it is not in the initial namespaces, or may not look.
var ErrBlind = errors.New("cannot see all holders of namespaces from here")

// The kernel's fixed inode numbers of the first pid and user namespaces.
const (
	initialPID  = "pid:[4026531836]"
	initialUser = "user:[4026531837]"
)

// Held returns the inode numbers of all network namespaces that a process, a
// descriptor or a mount holds. One that is not among them is gone, or lives on
// in sockets alone. proc is where the proc file system is: /proc.
//
// It looks at every thread of the machine: it is for the rare case where a
// namespace's end must be proven and nothing cheaper proves it.
func Held(proc string) (map[uint64]bool, error) {
	l := look{proc: proc, net: map[uint64]bool{}, mounts: map[string]bool{}, wanted: map[string]bool{}}
	if err := l.sees(); err != nil {
		return nil, err
	}
	// A second time, for what went from a process not yet looked at to one that
	// already was.
	for range 2 {
		if err := l.all(); err != nil {
			return nil, err
		}
	}
	for m := range l.wanted {
		if !l.mounts[m] {
			return nil, fmt.Errorf("mount namespace %s without a process: %w", m, ErrBlind)
		}
	}
	return l.net, nil
}

// look gathers what one Held sees.
type look struct {
	proc   string
	net    map[uint64]bool
	mounts map[string]bool // mount namespaces whose mounts were read
	wanted map[string]bool // mount namespaces that something holds
}

// sees checks that this process is where all others can be seen.
func (l *look) sees() error {
	for link, want := range map[string]string{"pid": initialPID, "user": initialUser} {
		got, err := os.Readlink(filepath.Join(l.proc, "self/ns", link))
		if err != nil || got != want {
			return fmt.Errorf("%s namespace %s: %w", link, got, ErrBlind)
		}
	}
	first, err := os.Readlink(filepath.Join(l.proc, "1/ns/mnt"))
	own, oerr := os.Readlink(filepath.Join(l.proc, "self/ns/mnt"))
	if err != nil || oerr != nil || first != own {
		return fmt.Errorf("mount namespace %s: %w", own, ErrBlind)
	}
	return nil
}

func (l *look) all() error {
	l.mounts = map[string]bool{}
	return l.each("", func(pid string) error {
		if _, err := strconv.Atoi(pid); err != nil {
			return nil
		}
		return l.each(pid+"/task", func(tid string) error { return l.thread(pid + "/task/" + tid) })
	})
}

// each calls fn with the names in a directory of proc. What has ended meanwhile
// is nothing.
func (l *look) each(dir string, fn func(name string) error) error {
	f, err := os.Open(filepath.Join(l.proc, dir))
	if gone(err) {
		return nil
	}
	if err != nil {
		return blind(err)
	}
	names, err := f.Readdirnames(-1)
	if err = errors.Join(err, f.Close()); err != nil && !gone(err) {
		return blind(err)
	}
	for _, n := range names {
		if err := fn(n); err != nil {
			return err
		}
	}
	return nil
}

func (l *look) thread(dir string) error {
	mnt, err := l.link(dir + "/ns/mnt")
	if err != nil {
		return err
	}
	if mnt != "" && !l.mounts[mnt] {
		if err := l.mountsOf(dir); err != nil {
			return err
		}
		l.mounts[mnt] = true
	}
	if err := l.note(dir + "/ns/net"); err != nil {
		return err
	}
	return l.each(dir+"/fd", func(fd string) error { return l.note(dir + "/fd/" + fd) })
}

// note looks at a link that may lead to a namespace.
func (l *look) note(path string) error {
	to, err := l.link(path)
	l.seen(to)
	return err
}

func (l *look) seen(name string) {
	if ino, ok := strings.CutPrefix(name, "net:["); ok {
		if n, err := strconv.ParseUint(strings.TrimSuffix(ino, "]"), 10, 64); err == nil {
			l.net[n] = true
		}
	}
	if strings.HasPrefix(name, "mnt:[") {
		l.wanted[name] = true
	}
}

// mountsOf looks at the namespaces that are mounted somewhere: the root of such
// a mount is the namespace's name.
func (l *look) mountsOf(dir string) error {
	f, err := os.Open(filepath.Join(l.proc, dir, "mountinfo"))
	if gone(err) {
		return nil
	}
	if err != nil {
		return blind(err)
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if field := strings.Fields(lines.Text()); len(field) > 3 {
			l.seen(field[3])
		}
	}
	if err := errors.Join(lines.Err(), f.Close()); err != nil && !gone(err) {
		return blind(err)
	}
	return nil
}

func (l *look) link(path string) (string, error) {
	to, err := os.Readlink(filepath.Join(l.proc, path))
	if err != nil && !gone(err) {
		return "", blind(err)
	}
	return to, nil
}

// gone reports whether a process has ended. A zombie's mounts are EINVAL.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL)
}

func blind(err error) error { return fmt.Errorf("%w: %w", ErrBlind, err) }
