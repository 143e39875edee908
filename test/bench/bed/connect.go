package bed

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// hostAddress is the host's address on up0, where published ports are reached.
var hostAddress = [4]byte{198, 51, 100, 1}

// synRetries ends the wait for a port that is not published after seven seconds. A time-out on the socket would do too,
// but makes connect fail at every signal, and the Go runtime sends itself some.
const synRetries = 2

// Connect measures n connections from outside, one after the other, through slot 0's first published port, and reports
// how many there are in a second.
func (b *Bed) Connect(n int, rate *float64) error {
	wall, err := b.connections(0, n)
	*rate = float64(n) / wall.Seconds()
	return err
}

// connections opens and resets n connections to the slot's first published port.
func (b *Bed) connections(slot, n int) (time.Duration, error) {
	var server int
	err := inside(b.slots[slot].sandbox, func() (err error) {
		server, err = listen(80)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("listen in the sandbox: %w", err)
	}
	served := make(chan error, 1)
	go func() { served <- accept(server, n) }()
	var wall time.Duration
	err = inside("/run/netns/outside", func() error {
		to := unix.SockaddrInet4{Port: firstPort + slot*b.setup.Ports, Addr: hostAddress}
		begin := time.Now()
		for range n {
			if err := connect(&to); err != nil {
				return err
			}
		}
		wall = time.Since(begin)
		return nil
	})
	if err != nil {
		// Wakes the accept that waits for connections which do not come.
		return 0, errors.Join(fmt.Errorf("connect: %w", err), unix.Shutdown(server, unix.SHUT_RDWR), <-served, unix.Close(server))
	}
	return wall, errors.Join(<-served, unix.Close(server))
}

// listen makes a listening socket in the thread's namespace.
func listen(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Port: port}),
		unix.Listen(fd, 128))
	return fd, err
}

// accept takes n connections and closes them.
func accept(server, n int) error {
	for range n {
		fd, _, err := unix.Accept(server)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

// connect opens one connection and resets it, which leaves no port in TIME_WAIT.
func connect(to unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, synRetries),
		unix.Connect(fd, to),
		unix.Close(fd))
}
