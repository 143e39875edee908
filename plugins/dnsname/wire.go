package dnsname

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
)

// The daemon's socket takes one line a connection, words between spaces, and
// answers "ok", more text after that in a new line, or "error " and a text:
//
//	sync NETWORK CONTAINER IFNAME    read the attachment's record again
//	verify NETWORK CONTAINER IFNAME  do you answer with what the record says?
//	reload                           read all records again
//	status                           in JSON
//
// A record's file is what counts, so that it does not matter how often, and in
// which order, the daemon is told of it.

// SocketOf returns the daemon's socket. No network has a name like that.
func SocketOf(dir journal.Dir) string { return filepath.Join(string(dir), ".dns.sock") }

// Line is what the daemon is asked about an attachment.
func Line(verb string, k journal.Key) string {
	return verb + " " + k.Network + " " + k.ContainerID + " " + k.IfName
}

// ErrNoDaemon says that no daemon listens.
var ErrNoDaemon = errors.New("dns daemon: not running")

// errCut says that the daemon ended in the middle: another one can be asked.
var errCut = errors.New("dns daemon: ended without an answer")

// How long a connection waits to be let in, and for the answer.
const answerWait = 10 * time.Second

// MaxAnswer bounds an answer in bytes: a status with some ten thousand names.
const MaxAnswer = 64 << 20

// Ask has the daemon answer a line. A daemon that is killed meanwhile is asked
// again when there is another.
func Ask(ctx context.Context, dir journal.Dir, line string) (string, error) {
	answer, err := ask(ctx, dir, line)
	for try := 0; errors.Is(err, errCut) && try < maxTries; try++ {
		answer, err = ask(ctx, dir, line)
	}
	return answer, err
}

// maxTries is how many daemons in a row may end in the middle.
const maxTries = 20

// Tell has the daemon read the attachment's record again, if there is a daemon.
func Tell(ctx context.Context, dir journal.Dir, k journal.Key) error {
	_, err := Ask(ctx, dir, Line("sync", k))
	return err
}

// Verify asks whether the daemon answers with what the attachment's record says.
func Verify(ctx context.Context, dir journal.Dir, k journal.Key) error {
	_, err := Ask(ctx, dir, Line("verify", k))
	if errors.Is(err, ErrNoDaemon) {
		return cnierr.Check("%w (the next ADD on a network with names starts it, and so does: netcleat dns start)", err)
	}
	if refused := refusal(""); errors.As(err, &refused) {
		return cnierr.Check("%w", err)
	}
	return cnierr.With(cnierr.TryAgain, err)
}

// refusal is what the daemon answers no with.
type refusal string

func (r refusal) Error() string { return "dns daemon: " + string(r) }

func ask(ctx context.Context, dir journal.Dir, line string) (string, error) {
	conn, err := dial(SocketOf(dir))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }() // the answer is what counts
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(answerWait)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, line+"\n"); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return "", fmt.Errorf("dns daemon: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(conn, MaxAnswer))
	switch text := string(b); {
	case err != nil && !errors.Is(err, unix.ECONNRESET):
		return "", cnierr.With(cnierr.TryAgain, fmt.Errorf("dns daemon: %w", err))
	case strings.HasPrefix(text, "ok\n"):
		return text[len("ok\n"):], nil
	case strings.HasPrefix(text, "error ") && strings.HasSuffix(text, "\n"):
		return "", refusal(strings.TrimSpace(text[len("error "):]))
	}
	return "", errCut
}

// dial connects to the daemon. A net.Dialer would bring half a megabyte along,
// name resolution for the most part.
func dial(socket string) (_ *os.File, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// As long as the daemon has many others to let in, connecting waits.
	wait := unix.NsecToTimeval(int64(answerWait))
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
	if err == nil {
		err = at(socket, func(a *unix.SockaddrUnix) error { return retry(func() error { return unix.Connect(fd, a) }) })
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		err = ErrNoDaemon
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), socket), nil
}

// at calls fn with the address of a socket, which takes no more than 107 bytes:
// by its directory's descriptor any path is short.
func at(socket string, fn func(*unix.SockaddrUnix) error) error {
	dir, err := unix.Open(filepath.Dir(socket), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = fn(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(socket))})
	return errors.Join(err, unix.Close(dir))
}

func retry(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
