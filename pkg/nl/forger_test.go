package nl_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// forged are messages that answer a request in the kernel's place: an attribute
// without its byte, another link, success and the end of a list.
func forged(seq uint32) [][]byte {
	message := func(typ uint16, body ...byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
		b = binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(b, typ), 0)
		return append(binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, seq), 0), body...)
	}
	empty := binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, unix.SizeofRtAttr), unix.IFLA_OPERSTATE)
	return [][]byte{
		message(unix.RTM_NEWLINK, append(nl.Ifinfomsg(4711), empty...)...),
		message(unix.NLMSG_ERROR, make([]byte, 4+unix.SizeofNlMsghdr)...),
		message(unix.NLMSG_DONE, make([]byte, 4)...),
	}
}

// forge sends the messages for the next requests of the socket to it, and returns
// the first error.
func forge(t *testing.T, ns *netns.NS, victim int) error {
	t.Helper()
	name, err := unix.Getsockname(victim)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := ns.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	for seq := range uint32(30) {
		for _, m := range forged(seq) {
			if err := unix.Sendto(fd, m, unix.MSG_DONTWAIT, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// disconnect has the socket take messages of anybody again, as in the moment
// before it was connected to the kernel.
func disconnect(t *testing.T, fd int) {
	t.Helper()
	unspec := unix.RawSockaddrNetlink{Family: unix.AF_UNSPEC}
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), unix.SizeofSockaddrNetlink); errno != 0 {
		t.Fatal(errno)
	}
}

// A process in the sandbox that answers in the kernel's place is not heard.
func TestForgedAnswers(t *testing.T) {
	bed, c, index := dial(t)
	if err := forge(t, bed.Sandbox, c.Fd()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the socket takes messages of others: %v", err)
	}
	for what, ask := range map[string]func() error{
		"link": func() error {
			l, err := c.LinkByName("d0")
			if err == nil && l.Index != index {
				t.Errorf("d0 has index %d, want %d", l.Index, index)
			}
			return err
		},
		"no link": func() error {
			if _, err := c.LinkByName("none"); !nl.NotFound(err) {
				t.Errorf("link that does not exist: %v", err)
			}
			return nil
		},
		"list": func() error {
			all, err := c.Links()
			if len(all) != 3 {
				t.Errorf("%d links, want lo and a pair", len(all))
			}
			return err
		},
		"change": func() error {
			if err := c.Do(nl.DelLinkIndex("lo", 1)); !errors.Is(err, unix.EOPNOTSUPP) {
				t.Errorf("deletion of lo: %v", err)
			}
			return nil
		},
	} {
		disconnect(t, c.Fd())
		if err := forge(t, bed.Sandbox, c.Fd()); err != nil {
			t.Fatal(err)
		}
		if err := ask(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Forged events wake no watch.
func TestForgedEvents(t *testing.T) {
	bed, c, index := dial(t)
	w, err := nl.NewWatch(bed.Sandbox, unix.RTNLGRP_IPV4_IFADDR)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fd, err := bed.Sandbox.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	everybody := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_IPV4_IFADDR - 1)}
	for _, m := range forged(0) {
		if err := unix.Sendto(fd, m, 0, everybody); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	if err := c.Do(nl.AddAddr(nl.Addr{Index: index, Prefix: prefix("10.1.0.2/16")})); err != nil {
		t.Fatal(err)
	}
	asked := 0
	err = w.Until(time.Now().Add(time.Minute), func() (bool, error) {
		asked++
		return strings.Contains(bed.SandboxIP("addr"), "10.1.0.2") && asked > 1, nil
	})
	if err != nil || asked != 2 {
		t.Errorf("asked %d times, want before and after the kernel's event: %v", asked, err)
	}
}
