package clusterlocal

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is the path of the daemon's socket.
type Socket string

// DefaultSocket is where the daemon listens.
const DefaultSocket Socket = "/run/cni/cluster.sock"

// Request is what the plugin asks the daemon, on a line: for a block with free
// addresses or, with Want, for the one with that address.
type Request struct {
	Config json.RawMessage `json:"config"` // the network's
	Want   string          `json:"want,omitempty"`
	// Uplink says that the network's uplink is new: what it has to forward is asked for,
	// instead of an address.
	Uplink bool `json:"uplink,omitempty"`
}

// Answer is the daemon's, on a line. Without an error the plugin tries again.
type Answer struct {
	Error string `json:"error,omitempty"`
}

// MaxRequest bounds a request and an answer.
const MaxRequest = 16 << 20

// dialWait bounds how long connecting takes.
const dialWait = 5 * time.Second

// serverError is what the daemon said no with.
type serverError string

func (e serverError) Error() string { return string(e) }

// Ask asks the daemon and waits for its answer.
func (s Socket) Ask(ctx context.Context, r Request) (err error) {
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if until, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(until); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, MaxRequest)).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: no answer: %w", s, err)
	}
	var a Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("%s: answer: %w", s, err)
	}
	if a.Error != "" {
		return serverError(a.Error)
	}
	return nil
}

// Reachable reports why no daemon listens.
func (s Socket) Reachable() error {
	conn, err := s.dial()
	if err != nil {
		return err
	}
	return conn.Close()
}

// dial connects. A net.Dialer would bring half a megabyte along.
func (s Socket) dial() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	wait := unix.NsecToTimeval(int64(dialWait))
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait); err == nil {
		err = unix.EINTR
		for err == unix.EINTR {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: string(s)})
		}
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", s, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), string(s)), nil
}
