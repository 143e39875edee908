package explain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// protocols are those whose sockets the kernel lists.
var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}

// From linux/sock_diag.h and linux/inet_diag.h.
const (
	sockDiagByFamily = 20
	sizeofDiagReq    = 56 // struct inet_diag_req_v2
	sizeofDiagMsg    = 72 // struct inet_diag_msg
	statesAt         = 4
	portAt           = 4
	inodeAt          = 68
	listening        = 1 << 10 // TCP_LISTEN
	unconnected      = 1 << 7  // TCP_CLOSE, as a datagram socket that is bound is
)

// listeners returns the inodes of the sockets that wait on a port in ns, which
// nil says is the own one.
func listeners(ns *netns.NS, protocol uint8, port uint16) (inodes []uint32, err error) {
	c, err := nl.Dial(ns, unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("sockets: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var some []uint32
		req := make([]byte, sizeofDiagReq)
		req[0], req[1] = family, protocol
		states := uint32(listening)
		if protocol == unix.IPPROTO_UDP {
			states = unconnected
		}
		binary.NativeEndian.PutUint32(req[statesAt:], states)
		m := nl.NewMessage("list sockets", sockDiagByFamily, 0, req...)
		m.Reply = func(b []byte) error {
			if at, inode, ok := parseSocket(b); ok && at == port {
				some = append(some, inode)
			}
			return nil
		}
		if err := c.Dump(m, func() { some = nil }); err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		inodes = append(inodes, some...)
	}
	return inodes, nil
}

// parseSocket reads the body of an answer. ok is false where it is cut short.
func parseSocket(b []byte) (port uint16, inode uint32, ok bool) {
	if len(b) < sizeofDiagMsg {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(b[portAt:]), nl.Uint32(b[inodeAt:]), true
}

// owner names the process that has one of the sockets.
func owner(inodes []uint32) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // a pattern that is good
	for _, l := range links {
		to, err := os.Readlink(l)
		if err != nil {
			continue
		}
		for _, inode := range inodes {
			if to != fmt.Sprintf("socket:[%d]", inode) {
				continue
			}
			dir := filepath.Dir(filepath.Dir(l))
			name, err := os.ReadFile(filepath.Join(dir, "comm"))
			if err == nil {
				return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
			}
		}
	}
	return "a process"
}
