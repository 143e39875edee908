package explain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/look"
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
	listen           = 1 << 10 // TCP_LISTEN
	unconnected      = 1 << 7  // TCP_CLOSE, as a datagram socket that is bound is
)

// listening names the host's sockets of a protocol.
type listening uint8

// listeners returns the inodes of the host's sockets that wait, by port.
func (w *worker) listeners(protocol uint8) (map[uint16][]uint32, error) {
	return look.Once(w.look, listening(protocol), func() (map[uint16][]uint32, error) { return listeners(nil, protocol) })
}

// listeners returns the inodes of the sockets that wait in ns, which nil says is the own one,
// by port.
func listeners(ns *netns.NS, protocol uint8) (inodes map[uint16][]uint32, err error) {
	c, err := nl.Dial(ns, unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("sockets: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	inodes = map[uint16][]uint32{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		type socket struct {
			port  uint16
			inode uint32
		}
		var some []socket
		req := make([]byte, sizeofDiagReq)
		req[0], req[1] = family, protocol
		states := uint32(listen)
		if protocol == unix.IPPROTO_UDP {
			states = unconnected
		}
		binary.NativeEndian.PutUint32(req[statesAt:], states)
		m := nl.NewMessage("list sockets", sockDiagByFamily, 0, req...)
		m.Reply = func(b []byte) error {
			if port, inode, ok := parseSocket(b); ok {
				some = append(some, socket{port, inode})
			}
			return nil
		}
		if err := c.Dump(m, func() { some = nil }); err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		for _, s := range some {
			inodes[s.port] = append(inodes[s.port], s.inode)
		}
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
func (w *worker) owner(inodes []uint32) string {
	// What cannot be read is a process.
	processes, _ := look.Once(w.look, "processes with sockets", func() (map[string]string, error) { return holders(), nil })
	for _, inode := range inodes {
		dir := processes[fmt.Sprintf("socket:[%d]", inode)]
		if name, err := os.ReadFile(filepath.Join(dir, "comm")); dir != "" && err == nil {
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
		}
	}
	return "a process"
}

// holders returns the directories of processes that have sockets open, by how descriptors
// name these.
func holders() map[string]string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // a pattern that is good
	all := map[string]string{}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "socket:") && all[to] == "" {
			all[to] = filepath.Dir(filepath.Dir(l))
		}
	}
	return all
}
