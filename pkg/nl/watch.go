package nl

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
)

// Watch is a socket that hears of changes.
type Watch struct{ c *Conn }

// NewWatch subscribes to multicast groups (unix.RTNLGRP_…) of rtnetlink in ns; a
// nil ns is the calling thread's namespace. What happens after it returns is
// heard, so a caller looks at the present state after, not before.
func NewWatch(ns *netns.NS, groups ...int) (*Watch, error) {
	c, err := Dial(ns, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return nil, errors.Join(fmt.Errorf("subscribe to rtnetlink group %d: %w", g, err), c.Close())
		}
	}
	return &Watch{c}, nil
}

// Close ends the subscription.
func (w *Watch) Close() error { return w.c.Close() }

// Until calls done at once and after every event, until it returns true or an
// error, or the deadline passes, which is os.ErrDeadlineExceeded.
func (w *Watch) Until(deadline time.Time, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if err := w.next(deadline); err != nil {
			return err
		}
	}
}

// next waits for one datagram of the kernel's events. Events lost to a full buffer
// count as one: the caller looks at the state again.
func (w *Watch) next(deadline time.Time) error {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		if event, err := w.wait(left); event || err != nil {
			return err
		}
	}
}

// wait waits for one datagram. event means that the kernel sent it.
func (w *Watch) wait(left time.Duration) (event bool, err error) {
	fds := []unix.PollFd{{Fd: int32(w.c.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(left/time.Millisecond)+1)
	switch {
	case err == unix.EINTR:
		return true, nil
	case err != nil:
		return false, os.NewSyscallError("poll", err)
	case n == 0:
		return false, os.ErrDeadlineExceeded
	}
	_, from, err := unix.Recvfrom(w.c.fd, w.c.buf, unix.MSG_DONTWAIT)
	switch err {
	case nil:
		return ofKernel(from), nil
	case unix.EINTR, unix.EAGAIN, unix.ENOBUFS:
		return true, nil
	}
	return false, os.NewSyscallError("recvfrom", err)
}
