package dnsd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/socket"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// Options say how the daemon runs.
type Options struct {
	Journal journal.Dir
	// Cgroups is where the mounted hierarchies of cgroups are listed.
	Cgroups string
	// OnDemand says that the plugin has started it: it has its socket from there,
	// and ends when there is nothing left to answer.
	OnDemand bool
}

// linger is how long a daemon that the plugin has started stays without any
// attachment.
const linger = 10 * time.Second

// Run is the daemon, until ctx ends or SIGTERM or SIGINT comes. It logs to
// standard error.
func Run(ctx context.Context, o Options) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	logger := log.New(os.Stderr, "", log.LstdFlags)
	if o.OnDemand {
		if err := leaveCgroup(o.Cgroups); err != nil {
			logger.Printf("cgroup: %v (a runtime that ends its own cgroup ends this daemon; the next call starts another)", err)
		}
	}
	return run(ctx, o, logger)
}

func run(ctx context.Context, o Options, logger *log.Logger) (err error) {
	l, err := o.socket()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, socket.IgnoreClosed(l.Close())) }()
	unlock, err := own(o.Journal)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	s, err := newServer(o.Journal, logger)
	if err != nil {
		return err
	}
	// The socket listens already: a DEL that finds no daemon has marked its record
	// before the records are read, or else is answered.
	if err := s.load(); err != nil {
		logger.Printf("records: %v", err)
	}
	logger.Printf("listening on %s, with %d attachments", l.Addr(), s.book.size())
	end := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer end()
	go s.tend(ctx, o, l)
	socket.Accept(ctx, l, logger, func(conn net.Conn) { go s.serve(conn) })
	s.doors.closeAll() // before the next daemon gets the lock
	return nil
}

// tend retries failed listeners, and ends an unused daemon that was started on demand.
func (s *server) tend(ctx context.Context, o Options, l net.Listener) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.doors.retry()
		if o.OnDemand && s.endIdle(linger) {
			_ = l.Close() // who connects from here on starts another
			return
		}
	}
}

// socket returns the socket that systemd or the plugin passed, or makes one.
func (o Options) socket() (net.Listener, error) {
	passed := os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) && os.Getenv("LISTEN_FDS") == "1"
	if !passed && !o.OnDemand {
		return socket.Listen(dnsname.SocketOf(o.Journal))
	}
	return socket.Passed()
}

// own makes the addresses this daemon's. Whoever has the socket is the one that is
// asked: an earlier daemon is told to end.
func own(dir journal.Dir) (unlock func() error, err error) {
	path := filepath.Join(string(dir), ".dns.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	now, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	if err := journal.Flock(now, int(f.Fd())); errors.Is(err, journal.ErrBusy) {
		if err := succeed(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	} else if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	err = errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())))
	return f.Close, err
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// succeed ends the daemon that has the lock, and takes it.
func succeed(f *os.File) error {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return err
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 1 {
		terminate(pid, f)
	}
	soon, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := journal.Flock(soon, int(f.Fd())); err != nil {
		return fmt.Errorf("another dns daemon, process %s, does not end: %w", strings.TrimSpace(string(b)), err)
	}
	return nil
}

// terminate sends SIGTERM to a process that has the lock file open. One that has not
// is another process with the number of a daemon that was killed.
func terminate(pid int, lock *os.File) {
	p, err := os.FindProcess(pid) // a handle, which keeps its process when the number is used again
	if err != nil {
		return
	}
	defer func() { _ = p.Release() }()
	want, err := lock.Stat()
	if err != nil {
		return
	}
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	files, _ := os.ReadDir(dir) // a process that has ended holds nothing
	for _, f := range files {
		if st, err := os.Stat(filepath.Join(dir, f.Name())); err == nil && os.SameFile(want, st) {
			_ = p.Signal(unix.SIGTERM) // it may have ended
			return
		}
	}
}
