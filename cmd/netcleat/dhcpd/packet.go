package dhcpd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/ipmath"
	"github.com/netcleat/netcleat/pkg/nl"
)

// The ports of RFC 2131.
const (
	serverPort = 67
	clientPort = 68
)

var (
	broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	broadcastIP  = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// errNoAnswer says that no server answered in time. The reference's words: its
// plugin and ours find the condition by them.
var errNoAnswer = errors.New("no more tries")

// peer is where a message goes to, or an answer came from.
type peer struct {
	ip  netip.Addr
	mac net.HardwareAddr
}

// everyone is the broadcast on the link.
var everyone = peer{ip: broadcastIP, mac: broadcastMAC}

// wire is a packet socket on one link: it needs no address there. While it is
// open it keeps the namespace alive, so it is open for one exchange only.
type wire struct {
	file  *os.File
	index int
	mac   net.HardwareAddr
	xid   dhcpv4.TransactionID
	buf   [2048]byte
}

// openWire opens a socket in the sandbox that hears the answers to xid.
func openWire(s *sandbox, xid dhcpv4.TransactionID) (_ *wire, err error) {
	fd, err := s.ns.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	// It hears nothing before it is bound, and by then the filter is there.
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, answersTo(xid))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: nl.NetworkOrder(unix.ETH_P_IP), Ifindex: s.link.Index})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("packet socket on %s: %w", s.link.Name, err), unix.Close(fd))
	}
	return &wire{file: os.NewFile(uintptr(fd), "dhcp"), index: s.link.Index, mac: s.link.MAC, xid: xid}, nil
}

// answersTo is a filter for UDP to the client's port with the transaction's
// number: on a busy LAN the others' answers wake nobody.
func answersTo(xid dhcpv4.TransactionID) *unix.SockFprog {
	const load, loadAt, loadX, jeq, jset, ret = unix.BPF_LD | unix.BPF_ABS, unix.BPF_LD | unix.BPF_IND, unix.BPF_LDX | unix.BPF_MSH | unix.BPF_B,
		unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	prog := []unix.SockFilter{
		{Code: load | unix.BPF_B, K: 9}, // protocol
		{Code: jeq, Jf: 8, K: unix.IPPROTO_UDP},
		{Code: load | unix.BPF_H, K: 6}, // fragment offset, more fragments
		{Code: jset, Jt: 6, K: 0x3fff},
		{Code: loadX, K: 0},               // X = length of the IP header
		{Code: loadAt | unix.BPF_H, K: 2}, // UDP destination port
		{Code: jeq, Jf: 3, K: clientPort},
		{Code: loadAt | unix.BPF_W, K: 8 + 4}, // xid
		{Code: jeq, Jf: 1, K: binary.BigEndian.Uint32(xid[:])},
		{Code: ret, K: 0xffff},
		{Code: ret, K: 0},
	}
	return &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
}

func (w *wire) close() error { return w.file.Close() }

// send puts one message on the link. src is invalid where the client has no
// address yet.
func (w *wire) send(m *dhcpv4.DHCPv4, src netip.Addr, to peer) error {
	if !src.IsValid() {
		src = netip.IPv4Unspecified()
	}
	mac := to.mac
	if len(mac) != 6 {
		mac = broadcastMAC
	}
	addr := &unix.SockaddrLinklayer{Protocol: nl.NetworkOrder(unix.ETH_P_IP), Ifindex: w.index, Halen: 6}
	copy(addr.Addr[:], mac)
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	b := datagram(src, to.ip, m.ToBytes())
	var serr error
	err = raw.Write(func(fd uintptr) bool {
		serr = unix.Sendto(int(fd), b, 0, addr)
		return serr != unix.EAGAIN
	})
	return errors.Join(err, os.NewSyscallError("sendto", serr))
}

// datagram puts IP and UDP headers before a message.
func datagram(src, dst netip.Addr, payload []byte) []byte {
	const ip, udp = 20, 8
	b := make([]byte, ip+udp, ip+udp+len(payload))
	s, d := src.As4(), dst.As4()
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(ip+udp+len(payload)))
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	binary.BigEndian.PutUint16(b[10:], ipmath.Checksum(0, b[:ip]))
	u := b[ip:]
	binary.BigEndian.PutUint16(u[0:], clientPort)
	binary.BigEndian.PutUint16(u[2:], serverPort)
	binary.BigEndian.PutUint16(u[4:], uint16(udp+len(payload)))
	b = append(b, payload...)
	// The pseudo header: both addresses, the protocol and the length.
	sum := ipmath.Checksum(uint32(unix.IPPROTO_UDP)+uint32(udp+len(payload)), b[12:])
	if sum == 0 {
		sum = 0xffff // 0 would say that there is none
	}
	binary.BigEndian.PutUint16(b[ip+6:], sum)
	return b
}

// answer is a server's message.
type answer struct {
	*dhcpv4.DHCPv4
	from net.HardwareAddr
}

// parse reads the datagram of an answer to this client. The UDP checksum is not
// looked at: between namespaces of one host nobody has computed it.
func (w *wire) parse(b []byte) (*dhcpv4.DHCPv4, error) {
	if len(b) < 20 || b[0]>>4 != 4 || b[9] != unix.IPPROTO_UDP {
		return nil, errors.New("no UDP over IPv4")
	}
	ip, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if ip < 20 || total < ip+8 || total > len(b) { // an Ethernet frame may be longer than its packet
		return nil, errors.New("packet cut short")
	}
	b = b[:total]
	m, err := dhcpv4.FromBytes(b[ip+8:])
	if err != nil {
		return nil, err
	}
	if m.OpCode != dhcpv4.OpcodeBootReply || m.TransactionID != w.xid || m.ClientHWAddr.String() != w.mac.String() {
		return nil, errors.New("not for this client")
	}
	return m, nil
}

// receive waits for the next answer.
func (w *wire) receive() (answer, error) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return answer{}, err
	}
	for {
		var n int
		var from unix.Sockaddr
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), w.buf[:], 0)
			return rerr != unix.EAGAIN && rerr != unix.EINTR
		})
		if rerr == unix.ENETDOWN {
			continue // said once; the socket hears again when the link is up
		}
		if err = errors.Join(err, os.NewSyscallError("recvfrom", rerr)); err != nil {
			return answer{}, err
		}
		m, err := w.parse(w.buf[:n])
		if err != nil {
			continue // anybody may send anything
		}
		a := answer{DHCPv4: m}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Halen == 6 {
			a.from = append(a.from, ll.Addr[:6]...)
		}
		return a, nil
	}
}

// query is a message with the answers that it waits for.
type query struct {
	msg       *dhcpv4.DHCPv4
	src       netip.Addr // invalid: the client has no address yet
	to        peer
	want      func(answer) bool
	early     []time.Duration // how long until the message is sent again, at first
	wait, max time.Duration   // and afterwards: wait doubles up to max
	tries     int             // 0: until ctx ends
}

// next returns how long to wait after the given try, from 1 on.
func (q *query) next(try int) time.Duration {
	if try <= len(q.early) {
		return min(q.early[try-1], q.wait)
	}
	wait := q.wait
	q.wait = min(2*q.wait, q.max)
	return wait
}

// ask sends q's message, again and again, until an answer comes that q wants.
func (w *wire) ask(ctx context.Context, q query) (answer, error) {
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for try := 1; ctx.Err() == nil; try++ {
		if err := w.send(q.msg, q.src, q.to); err != nil && !transient(err) {
			return answer{}, err
		}
		a, err := w.hear(ctx, q.want, q.next(try))
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return a, err
		}
		if try == q.tries {
			return answer{}, errNoAnswer
		}
	}
	return answer{}, context.Cause(ctx)
}

// transient reports whether a message may get through a moment later: the link
// is down, or its queue full.
func transient(err error) bool {
	return errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN)
}

// hear reads answers until one is wanted or the time to repeat has come, which
// varies by a quarter, so that clients that started together drift apart.
func (w *wire) hear(ctx context.Context, want func(answer) bool, wait time.Duration) (answer, error) {
	wait += time.Duration((rand.Float64() - 0.5) / 2 * float64(wait))
	if err := w.file.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return answer{}, err
	}
	if ctx.Err() != nil { // it ended before the deadline was set, which would undo its own
		return answer{}, context.Cause(ctx)
	}
	for {
		a, err := w.receive()
		if err != nil || want(a) {
			return a, err
		}
	}
}
