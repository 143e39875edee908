package netns

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrBlind says that this process cannot see everything that may hold a
// namespace: it is not in the initial namespaces, or may not look.
var ErrBlind = errors.New("cannot see all holders of namespaces from here")

// The kernel's fixed inode numbers of the first pid and user namespaces.
const (
	initialPID  = "pid:[4026531836]"
	initialUser = "user:[4026531837]"
)

// Held returns the network namespaces that a process, a thread, a descriptor or a
// mount holds: by inode number a path that leads there. One that is not among them
// no longer exists, or is held by sockets alone. proc is where the proc file system
// is: /proc.
//
// It may be called from any mount namespace, since proc shows those of all
// processes. It looks at every thread of the machine: it is for the rare case where
// a namespace's end must be proven.
func Held(proc string) (map[uint64]string, error) {
	l := look{proc: proc, net: map[uint64]string{}}
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
	return l.net, nil
}

// look gathers what one Held sees.
type look struct {
	proc   string
	net    map[uint64]string
	mounts map[mountView]bool // whose mounts were read
	wanted map[string]string  // mount namespaces that something holds, and where
}

// mountView is what a thread sees of a mount namespace: one that is chrooted sees
// the mounts below its root alone.
type mountView struct{ ns, root string }

// sees checks that this process is where all others can be seen, and may look at
// them: proc hides what cannot be traced, where it was told to (hidepid).
func (l *look) sees() error {
	for link, want := range map[string]string{"pid": initialPID, "user": initialUser} {
		got, err := os.Readlink(filepath.Join(l.proc, "self/ns", link))
		if err != nil || got != want {
			return fmt.Errorf("%s namespace %s: %w", link, got, ErrBlind)
		}
	}
	status, err := os.ReadFile(filepath.Join(l.proc, "self/status"))
	if err != nil {
		return blind(err)
	}
	_, after, _ := strings.Cut(string(status), "\nCapEff:")
	mask, _, _ := strings.Cut(strings.TrimSpace(after), "\n")
	if caps, err := strconv.ParseUint(mask, 16, 64); err != nil || caps&(1<<unix.CAP_SYS_PTRACE) == 0 {
		return fmt.Errorf("without CAP_SYS_PTRACE: %w", ErrBlind)
	}
	return nil
}

// all looks at every thread, and at the mounts of mount namespaces that no thread
// shows from their root.
func (l *look) all() error {
	l.mounts, l.wanted = map[mountView]bool{}, map[string]string{}
	err := l.each("", func(pid string) error {
		if _, err := strconv.Atoi(pid); err != nil {
			return nil
		}
		return l.each(pid+"/task", func(tid string) error { return l.thread(pid + "/task/" + tid) })
	})
	if err != nil {
		return err
	}
	for ns, path := range l.wanted {
		if l.mounts[mountView{ns, "/"}] {
			continue
		}
		if err := l.enter(path); err != nil {
			return fmt.Errorf("%s without a process at its root: %w", ns, blind(err))
		}
	}
	return nil
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
	ns, err := l.link(dir + "/ns/mnt")
	if err != nil {
		return err
	}
	root, err := l.link(dir + "/root")
	if err != nil {
		return err
	}
	if view := (mountView{ns, root}); ns != "" && root != "" && !l.mounts[view] {
		switch read, err := l.mountsOf(dir); {
		case err != nil:
			return err
		case read:
			l.mounts[view], l.wanted[ns] = true, dir+"/ns/mnt"
		}
	}
	if err := l.note(dir + "/ns/net"); err != nil {
		return err
	}
	return l.each(dir+"/fd", func(fd string) error { return l.note(dir + "/fd/" + fd) })
}

// note looks at a link that may lead to a namespace.
func (l *look) note(path string) error {
	to, err := l.link(path)
	l.seen(to, path)
	return err
}

func (l *look) seen(name, path string) {
	if ino, ok := strings.CutPrefix(name, "net:["); ok {
		if n, err := strconv.ParseUint(strings.TrimSuffix(ino, "]"), 10, 64); err == nil {
			l.net[n] = filepath.Join(l.proc, path)
		}
	}
	if strings.HasPrefix(name, "mnt:[") {
		l.wanted[name] = path
	}
}

// mountsOf looks at the mounts that a thread sees. It reports whether the thread
// had not ended yet.
func (l *look) mountsOf(dir string) (bool, error) {
	f, err := os.Open(filepath.Join(l.proc, dir, "mountinfo"))
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, blind(err)
	}
	return true, l.readMounts(f, func(at string) string { return dir + "/root" + at })
}

// readMounts looks for namespaces that are mounted somewhere: the root of such a
// mount is the namespace's name. path returns where a mount point is below proc.
func (l *look) readMounts(f *os.File, path func(at string) string) error {
	lines, unescape := bufio.NewScanner(f), unescaper()
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if field := strings.Fields(lines.Text()); len(field) > 4 {
			l.seen(field[3], path(unescape.Replace(field[4])))
		}
	}
	if err := errors.Join(lines.Err(), f.Close()); err != nil && !gone(err) {
		return blind(err)
	}
	return nil
}

// enter looks at all mounts of the mount namespace at path, from a thread of its
// own that goes there and ends. What is mounted there has no path from here.
func (l *look) enter(path string) error {
	proc, err := os.Open(l.proc)
	if err != nil {
		return err
	}
	ns, err := os.Open(filepath.Join(l.proc, path))
	if err != nil { // perhaps it ended, perhaps something else holds it now
		return errors.Join(err, proc.Close())
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- l.inside(proc, ns, path)
	}()
	return errors.Join(<-done, ns.Close(), proc.Close())
}

func (l *look) inside(proc, ns *os.File, path string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("setns", err)
	}
	own := fmt.Sprintf("%d/task/%d/mountinfo", os.Getpid(), unix.Gettid())
	fd, err := unix.Openat(int(proc.Fd()), own, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open "+own, err)
	}
	return l.readMounts(os.NewFile(uintptr(fd), own), func(string) string { return path })
}

// unescaper undoes what mountinfo does to mount points.
func unescaper() *strings.Replacer {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
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
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

func blind(err error) error { return fmt.Errorf("%w: %w", ErrBlind, err) }
