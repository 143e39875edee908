package dnsname

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/file"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Former is what containers/dnsname, the plugin before this one, has of a network: a
// directory with dnsmasq's configuration and with the names of the containers that it
// attached. Its dnsmasq has the port that the daemon needs. So the first ADD ends it,
// and the daemon answers with the names of its file until DEL has removed the last.
type Former struct{ Dir string }

// The files of a Former.
const (
	formerHosts  = "addnhosts"
	formerConf   = "dnsmasq.conf"
	formerPID    = "pidfile"
	formerLock   = "lock"
	formerParent = "containers/cni/dnsname"
)

// formerDirs are where containers/dnsname keeps its networks: next to the records, as
// both are in /run, or as a user in the user's directory.
func formerDirs(dir journal.Dir) []string {
	dirs := []string{filepath.Join(filepath.Dir(string(dir)), formerParent)}
	if user := os.Getenv("XDG_RUNTIME_DIR"); user != "" {
		dirs = append(dirs, filepath.Join(user, formerParent))
	}
	return dirs
}

// FormerOf returns what containers/dnsname has of a network, if it has anything.
func FormerOf(dir journal.Dir, network string) (f Former, found bool) {
	if network == "" || strings.ContainsRune(network, filepath.Separator) || network[0] == '.' {
		return f, false
	}
	for _, parent := range formerDirs(dir) {
		f.Dir = filepath.Join(parent, network)
		if _, err := os.Stat(filepath.Join(f.Dir, formerHosts)); err == nil {
			return f, true
		}
	}
	return f, false
}

// Formers returns all of them, by network.
func Formers(dir journal.Dir) map[string]Former {
	all := map[string]Former{}
	for _, parent := range formerDirs(dir) {
		entries, _ := os.ReadDir(parent) // mostly there is none
		for _, e := range entries {
			if f, found := FormerOf(dir, e.Name()); found {
				all[e.Name()] = f
			}
		}
	}
	return all
}

// Hosts returns the lines of the names: an address, the container's name, aliases.
func (f Former) Hosts() (lines [][]string, err error) {
	b, err := file.Read(filepath.Join(f.Dir, formerHosts))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for line := range bytes.Lines(b) {
		if words := strings.Fields(string(line)); len(words) > 1 {
			lines = append(lines, words)
		}
	}
	return lines, err
}

// Option returns a value of dnsmasq's configuration, such as the domain.
func (f Former) Option(key string) string {
	b, _ := file.Read(filepath.Join(f.Dir, formerConf)) // without it there is no value
	for line := range bytes.Lines(b) {
		if k, v, ok := strings.Cut(strings.TrimSpace(string(line)), "="); ok && k == key {
			return v
		}
	}
	return ""
}

// process returns the network's dnsmasq, and its command line, if it runs. A PID file
// alone proves nothing: the command line has to name the network's configuration.
func (f Former) process() (p *os.Process, argv []string) {
	b, err := file.Read(filepath.Join(f.Dir, formerPID))
	pid, perr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || perr != nil || pid < 2 {
		return nil, nil
	}
	if p, err = os.FindProcess(pid); err != nil { // a handle: the number may be used again
		return nil, nil
	}
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	argv = strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
	if err != nil || !slices.Contains(argv, "--conf-file="+filepath.Join(f.Dir, formerConf)) {
		_ = p.Release()
		return nil, nil
	}
	return p, argv
}

// Runs reports whether the network's dnsmasq answers.
func (f Former) Runs() bool {
	p, _ := f.process()
	if p == nil {
		return false
	}
	_ = p.Release()
	return true
}

// formerEnds is how long dnsmasq may take to end.
const formerEnds = 5 * time.Second

// succeed ends the network's dnsmasq, so that the daemon can listen in its place, and
// returns what starts it again.
func succeed(c *plugin.Call) (again func() error, err error) {
	f, found := FormerOf(c.Journal, c.Conf.Name)
	nothing := func() error { return nil }
	if !found {
		return nothing, nil
	}
	p, argv := f.process()
	if p == nil {
		return nothing, nil
	}
	defer func() { err = errors.Join(err, p.Release()) }()
	if _, err := program(); err != nil {
		return nil, err // who would answer then?
	}
	what := "end dnsmasq of network " + c.Conf.Name
	if err := c.Gate.Pass(what); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if err := end(p); err != nil {
		return nil, fmt.Errorf("%s: process %d: %w", what, p.Pid, err)
	}
	return func() error {
		if conn, err := dial(SocketOf(c.Journal)); err == nil {
			return conn.Close() // a daemon answers with the names
		}
		return exec.Command(argv[0], argv[1:]...).Run()
	}, nil
}

// end ends a process and waits until it has ended.
func end(p *os.Process) error {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	if err := p.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(err, unix.Close(fd))
	}
	n := 0
	err = retry(func() error {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(formerEnds.Milliseconds()))
		return err
	})
	if err == nil && n == 0 {
		err = errors.New("does not end")
	}
	return errors.Join(err, unix.Close(fd))
}

// withdrawFormer removes the names of a container that containers/dnsname attached, as
// that plugin does: the last one ends its dnsmasq and removes its directory.
func withdrawFormer(ctx context.Context, c *plugin.Call) error {
	f, found := FormerOf(c.Journal, c.Conf.Name)
	name := arg(c.Args, "K8S_POD_NAME")
	if !found || name == "" {
		return nil
	}
	left, err := f.drop(name)
	if err != nil {
		return err
	}
	p, _ := f.process()
	if p != nil && left {
		err = p.Signal(unix.SIGHUP)
	} else if p != nil {
		err = end(p)
	}
	if p != nil {
		err = errors.Join(err, p.Release())
	}
	if !left {
		err = errors.Join(err, os.RemoveAll(f.Dir))
	}
	if terr := Tell(ctx, c.Journal, c.Key(Name)); terr != nil && !errors.Is(terr, ErrNoDaemon) {
		c.Note("dnsname: %v (the daemon forgets the names when it answers again)", terr)
	}
	return err
}

// drop removes a container's lines, under the lock that containers/dnsname uses, and
// reports whether others are left.
func (f Former) drop(name string) (left bool, err error) {
	lock, err := os.OpenFile(filepath.Join(f.Dir, formerLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := retry(func() error { return unix.Flock(int(lock.Fd()), unix.LOCK_EX) }); err != nil {
		return false, os.NewSyscallError("flock", err)
	}
	lines, err := f.Hosts()
	if err != nil {
		return false, err
	}
	var b strings.Builder
	for _, words := range lines {
		if words[1] != name {
			b.WriteString(words[0] + "\t" + strings.Join(words[1:], " ") + "\n")
		}
	}
	path := filepath.Join(f.Dir, formerHosts)
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o644); err != nil {
		return false, err
	}
	return b.Len() > 0, os.Rename(path+".new", path)
}
