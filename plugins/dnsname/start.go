package dnsname

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/command"
	"github.com/netcleat/netcleat/pkg/dbus"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// program returns the path of the program that is the daemon.
func program() (string, error) {
	path, err := command.Path()
	if err != nil {
		return "", fmt.Errorf("dns daemon: %w", err)
	}
	return path, nil
}

// announce has the daemon answer with the attachment's names. It starts one
// where none runs.
func announce(ctx context.Context, c *plugin.Call) error {
	line := Line("sync", c.Entry.Key)
	_, err := Ask(ctx, c.Journal, line)
	for try := 0; (errors.Is(err, ErrNoDaemon) || errors.Is(err, errCut)) && try < maxTries; try++ {
		if err := Start(ctx, c.Journal); err != nil {
			return cnierr.With(cnierr.TryAgain, err)
		}
		_, err = Ask(ctx, c.Journal, line)
	}
	if err != nil {
		return cnierr.With(cnierr.TryAgain, fmt.Errorf("names of %s: %w", c.ContainerID, err))
	}
	return nil
}

// Start starts a daemon unless one listens: by systemd where its units are
// installed, and otherwise as a process that outlives this one.
func Start(ctx context.Context, dir journal.Dir) (err error) {
	unlock, err := dir.Lock(ctx, "dns daemon")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	conn, err := dial(SocketOf(dir))
	if err == nil {
		return conn.Close() // another call was faster
	}
	if !errors.Is(err, ErrNoDaemon) {
		return err
	}
	if dir == journal.Default && startUnit() == nil {
		return nil
	}
	return launch(dir)
}

// Unit is the socket of the daemon's service.
const Unit = "netcleat-dns.socket"

// unitDirs are where systemd looks for units.
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

var errNoUnit = errors.New("no unit of the dns daemon")

// UnitInstalled reports whether systemd has the daemon's units.
func UnitInstalled() bool {
	if _, err := os.Stat("/run/systemd/private"); err != nil {
		return false // systemd does not run
	}
	for _, dir := range unitDirs {
		if _, err := os.Stat(filepath.Join(dir, Unit)); err == nil {
			return true
		}
	}
	return false
}

// startUnit has systemd listen on the daemon's socket, which starts the daemon
// when it is used.
func startUnit() error {
	if !UnitInstalled() {
		return errNoUnit
	}
	bus, err := dbus.System()
	if err != nil {
		return err
	}
	m := dbus.Method{Dest: "org.freedesktop.systemd1", Path: "/org/freedesktop/systemd1", Interface: "org.freedesktop.systemd1.Manager", Name: "StartUnit"}
	_, err = bus.Call(m, Unit, "replace")
	return errors.Join(err, bus.Close())
}

// launch starts the daemon as a process of its own. It is given the socket, on
// which this process listens already: whoever connects from here on is answered
// when the daemon has read the records.
func launch(dir journal.Dir) (err error) {
	path, err := program()
	if err != nil {
		return err
	}
	socket, err := listen(SocketOf(dir))
	if err != nil {
		return fmt.Errorf("dns daemon: %w", err)
	}
	defer func() { err = errors.Join(err, socket.Close()) }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, null.Close()) }()
	log, err := os.OpenFile(LogOf(dir), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	p, err := os.StartProcess(path, []string{"netcleat", "dns", "daemon", "--on-demand", "--journal", string(dir)}, &os.ProcAttr{
		Dir: "/", Env: environment(), Files: []*os.File{null, null, log, socket}, Sys: &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("dns daemon: %w", err)
	}
	return p.Release()
}

// environment is the daemon's: nothing of the call's.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + os.Getenv("XDG_RUNTIME_DIR")} // where containers/dnsname has its names
}

// LogOf returns the file that a daemon writes to which the plugin has started.
func LogOf(dir journal.Dir) string { return filepath.Join(string(dir), ".dns.log") }

// listen makes the daemon's socket. The one that is there is a dead daemon's.
func listen(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		return nil, &os.PathError{Op: "unlink", Path: path, Err: err}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// The directory is root's alone, and so is the socket.
	err = at(path, func(a *unix.SockaddrUnix) error { return unix.Bind(fd, a) })
	if err == nil {
		err = unix.Chmod(path, 0o600)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "listen", Path: path, Err: err}, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// backlog is how many calls may wait until the daemon is up: those of a node that
// starts all its pods.
const backlog = 4096
