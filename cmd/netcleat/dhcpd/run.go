package dhcpd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/socket"
	"github.com/netcleat/netcleat/pkg/journal"
	dhcp "github.com/netcleat/netcleat/plugins/dhcp-ipam"
)

// settings are the daemon's flags: the reference's, by name and meaning.
type settings struct {
	pidfile, hostPrefix, socketPath   string
	broadcast                         bool
	timeout, resendMax, resendTimeout time.Duration
}

func parseFlags(args []string) (settings, error) {
	var s settings
	f := flag.NewFlagSet("dhcp daemon", flag.ContinueOnError)
	f.StringVar(&s.pidfile, "pidfile", "", "write the daemon's PID to this absolute `path`")
	f.StringVar(&s.hostPrefix, "hostprefix", "", "where the host's root is mounted: put this `path` before those of socket and namespaces")
	f.StringVar(&s.socketPath, "socketpath", dhcp.DefaultSocket, "listen on this unix `socket`")
	f.BoolVar(&s.broadcast, "broadcast", false, "ask DHCP servers to answer by broadcast")
	f.DurationVar(&s.timeout, "timeout", 4*time.Second, "wait this long for a first answer before asking again; doubles with each try")
	f.DurationVar(&s.resendMax, "resendmax", 62*time.Second, "longest wait between two tries")
	f.DurationVar(&s.resendTimeout, "resendtimeout", 208*time.Second, "give up ADD after this time without a lease")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("dhcp daemon: unexpected argument %q", f.Arg(0))
	}
	if s.socketPath == "" {
		s.socketPath = dhcp.DefaultSocket
	}
	if s.pidfile != "" && !filepath.IsAbs(s.pidfile) {
		return s, fmt.Errorf("pidfile %q: path not absolute", s.pidfile)
	}
	for name, v := range map[string]time.Duration{"timeout": s.timeout, "resendmax": s.resendMax, "resendtimeout": s.resendTimeout} {
		if v <= 0 {
			return s, fmt.Errorf("-%s %s: must be more than 0", name, v)
		}
	}
	return s, nil
}

// Run is the daemon, from the arguments after `dhcp daemon` until ctx ends or
// SIGTERM or SIGINT comes. It logs to standard error.
func Run(ctx context.Context, args []string) (err error) {
	s, err := parseFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	return run(ctx, s, log.New(os.Stderr, "", log.LstdFlags))
}

func run(ctx context.Context, s settings, logger *log.Logger) (err error) {
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(errStopped)
	d := newDaemon(life, s, logger)
	unlock, err := lockState(d.leases)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	l, err := listen(s.hostPrefix + s.socketPath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, socket.IgnoreClosed(l.Close())) }()
	if s.pidfile != "" {
		if err := os.WriteFile(s.pidfile, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return fmt.Errorf("pidfile: %w", err)
		}
		defer func() { err = errors.Join(err, unlink(s.pidfile)) }()
	}
	// Listening comes first: a DEL that finds no daemon has marked its lease before
	// the leases are read, or else is answered.
	if err := d.load(); err != nil {
		return err
	}
	logger.Printf("listening on %s, with %d leases", l.Addr(), d.size())
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	socket.Accept(life, l, logger, func(conn net.Conn) { go d.answer(conn) })
	end(errStopped)
	d.stop()
	return nil
}

// lockState makes the directory of the lease files this daemon's own.
func lockState(dir dhcp.Leases) (unlock func() error, err error) {
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(string(dir), "lock")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	// A daemon that was told to end may take a moment; another one does not end.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := journal.Flock(ctx, fd); err != nil {
		return nil, fmt.Errorf("another dhcp daemon has %s: %w", dir, err)
	}
	return func() error { return unix.Close(fd) }, nil
}

// listen takes the socket that systemd passed, or creates one.
func listen(path string) (net.Listener, error) {
	if l, err := activated(); l != nil || err != nil {
		return l, err
	}
	return socket.Listen(path)
}

// activated returns the socket that systemd passed to this process, if any
// (sd_listen_fds(3)).
func activated() (net.Listener, error) {
	pid, n := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) || n == "" || n == "0" {
		return nil, nil
	}
	if n != "1" {
		return nil, fmt.Errorf("Too many (%s) FDs passed through socket activation", n) //nolint:staticcheck // the reference's words
	}
	return socket.Passed()
}
