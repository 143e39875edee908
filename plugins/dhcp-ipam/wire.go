package dhcp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
)

// CmdArgs is what the daemon is told of a call. Its fields are those of the
// reference's type of that name: encoding/gob goes by them.
type CmdArgs struct {
	ContainerID, Netns, IfName, Args, Path, NetnsOverride string
	StdinData                                             []byte
}

// The daemon's methods. Allocate and Release are the reference's, too; Check is
// only ours.
const (
	methodAllocate = "DHCP.Allocate"
	methodRelease  = "DHCP.Release"
	methodCheck    = "DHCP.Check"
)

// How long to wait for the daemon: to be let in, for an answer that needs no
// server, and for a lease. The last is above any schedule of retries that a
// runtime would wait for; the daemon itself gives up after its -resendtimeout.
const (
	dialWait     = 5 * time.Second
	answerWait   = 15 * time.Second
	allocateWait = 10 * time.Minute
)

// errDial says that there is no daemon, or none that answers the door.
var errDial = errors.New("error dialing DHCP daemon")

// serverError is what the daemon said no with.
type serverError string

func (e serverError) Error() string { return string(e) }

// dial connects to the daemon. A net.Dialer would bring half a megabyte along,
// name resolution for the most part.
func dial(socket string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDial, os.NewSyscallError("socket", err))
	}
	// As long as the daemon has many others to let in, connecting waits.
	wait := unix.NsecToTimeval(int64(dialWait))
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
	if err == nil {
		err = connectTo(fd, socket)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", errDial, socket, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), socket), nil
}

func connectTo(fd int, socket string) error {
	for {
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != unix.EINTR {
			return err
		}
	}
}

// connect asks for RPC as net/rpc's DialHTTP does: an HTTP CONNECT, whose answer
// ends with an empty line.
func connect(conn *os.File, r *bufio.Reader) error {
	if err := conn.SetDeadline(time.Now().Add(dialWait)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("CONNECT /_goRPC_ HTTP/1.0\n\n")); err != nil {
		return err
	}
	status, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !strings.Contains(string(status), " 200 Connected to Go RPC") {
		return fmt.Errorf("unexpected answer %q", status)
	}
	for lines := 0; lines < 100; lines++ {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(strings.TrimRight(string(line), "\r\n")) == 0 {
			return nil
		}
	}
	return errors.New("answer without end")
}

// call has the daemon do one thing. Where the daemon refuses, the error is a
// serverError.
func call(ctx context.Context, socket, method string, args CmdArgs) (*current.Result, error) {
	conn, err := dial(socket)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // the answer is what counts
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	r := bufio.NewReader(conn)
	if err := connect(conn, r); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errDial, socket, err)
	}
	wait := answerWait
	if method == methodAllocate {
		wait = allocateWait
	}
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(encodeCall(method, args)); err != nil {
		return nil, fmt.Errorf("error calling %s: %w", method, err)
	}
	res, err := decodeAnswer(r)
	if ctx.Err() != nil {
		err = ctx.Err() // and not that the connection is closed
	}
	if err != nil {
		return nil, fmt.Errorf("error calling %s: %w", method, err)
	}
	return res, nil
}
