package dnsd

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/socket"
	"github.com/netcleat/netcleat/pkg/nl"
)

const dnsPort = 53

// doors are the addresses that the daemon listens at.
type doors struct {
	s  *server
	mu sync.Mutex
	at map[netip.Addr]*door
}

// door is one address: a UDP socket and a TCP one.
type door struct {
	addr    netip.Addr
	users   int
	problem error // why nothing listens
	udp     *net.UDPConn
	tcp     net.Listener
}

// use counts an attachment whose queries come in at its gateways.
func (d *doors) use(e *entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, gw := range e.Gateways {
		if d.at[gw] == nil {
			d.at[gw] = &door{addr: gw}
		}
		d.at[gw].users++
	}
}

// open listens at an address that is in use.
func (d *doors) open(addr netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o := d.at[addr]; o != nil {
		return d.listen(o)
	}
	return nil // its last user has left
}

// listen opens what is not open; d.mu is held.
func (d *doors) listen(o *door) error {
	if o.udp != nil {
		return nil
	}
	err := o.bind()
	for errors.Is(err, unix.EADDRINUSE) && time.Since(d.s.started) < time.Second {
		<-time.After(10 * time.Millisecond) // the daemon before this one has just been killed
		err = o.bind()
	}
	if o.problem = err; err != nil {
		return err
	}
	go d.s.serveUDP(o.udp, o.addr)
	go d.s.serveTCP(o.tcp, o.addr)
	return nil
}

// bind opens both sockets, or none.
func (o *door) bind() error {
	conf := net.ListenConfig{Control: control}
	at := netip.AddrPortFrom(o.addr, dnsPort).String()
	packets, err := conf.ListenPacket(context.Background(), "udp", at)
	if err != nil {
		return err
	}
	l, err := conf.Listen(context.Background(), "tcp", at)
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	o.udp, _ = packets.(*net.UDPConn)
	o.tcp = l
	return nil
}

// closeAll ends all listening.
func (d *doors) closeAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.at {
		if o.udp != nil {
			_, _ = o.udp.Close(), o.tcp.Close()
		}
	}
	clear(d.at)
}

const receiveBuffer = 2 << 20

// control has sockets tell the interface that a packet came in by, and bind to an
// address that is not usable yet.
func control(network, _ string, c syscall.RawConn) error {
	v6 := network == "udp6" || network == "tcp6"
	udp := network == "udp6" || network == "udp4"
	var err error
	cerr := c.Control(func(fd uintptr) {
		set := func(level, option int) { err = errors.Join(err, unix.SetsockoptInt(int(fd), level, option, 1)) }
		if v6 {
			set(unix.IPPROTO_IPV6, unix.IPV6_FREEBIND)
		} else {
			set(unix.IPPROTO_IP, unix.IP_FREEBIND)
		}
		if udp {
			// Room for a burst, such as all containers of a node asking at once.
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer))
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) // beyond the host's limit, if it may
		}
		switch {
		case udp && v6:
			set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO)
		case udp:
			set(unix.IPPROTO_IP, unix.IP_PKTINFO)
		}
	})
	return errors.Join(cerr, err)
}

// leave ends the use of the attachment's gateways, and after the last the
// listening.
func (d *doors) leave(e *entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, gw := range e.Gateways {
		o := d.at[gw]
		if o == nil {
			continue
		}
		if o.users--; o.users > 0 {
			continue
		}
		delete(d.at, gw)
		if o.udp != nil {
			_, _ = o.udp.Close(), o.tcp.Close()
		}
	}
}

// retry opens what could not be opened, and reports whether something is left.
func (d *doors) retry() (left bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.at {
		left = d.listen(o) != nil || left
	}
	return left
}

// problem says why nothing listens at an address.
func (d *doors) problem(addr netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o := d.at[addr]; o != nil {
		return o.problem
	}
	return errors.New("not listening")
}

// addrs are all addresses.
func (d *doors) addrs() (all []netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for a := range d.at {
		all = append(all, a)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// maxQuery is how long a query may be over UDP, in bytes.
const maxQuery = 4096

// serveUDP answers what comes in at one address until its socket is closed. Names
// are answered at once; what others are asked for has goroutines of its own.
func (s *server) serveUDP(conn *net.UDPConn, gateway netip.Addr) {
	packet, oob := make([]byte, maxQuery), make([]byte, 64)
	for {
		n, noob, _, from, err := conn.ReadMsgUDPAddrPort(packet, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		s.stats.queries.Add(1)
		at := arrival{source: from.Addr().Unmap().WithZone(""), index: arrivedAt(oob[:noob]), gateway: gateway}
		if !s.limits.query(at.source) {
			s.stats.dropped.Add(1)
			continue
		}
		r := s.respond(packet[:n], at, via{})
		if r.forward != nil {
			s.forwardUDP(conn, from, r)
			continue
		}
		if r.packet != nil {
			_, _ = conn.WriteToUDPAddrPort(r.packet, from) // who is no longer there needs no answer
		}
	}
}

// arrivedAt reads the interface's index from IP_PKTINFO or IPV6_PKTINFO. -1 is
// none: no attachment has it.
func arrivedAt(oob []byte) int {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1
	}
	for _, m := range all {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return int(nl.Uint32(m.Data))
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return int(nl.Uint32(m.Data[16:]))
		}
	}
	return -1
}

// forwardUDP asks others, and answers when they have.
func (s *server) forwardUDP(conn *net.UDPConn, from netip.AddrPort, r reply) {
	done, ok := s.limits.forward(r.who.addr)
	if !ok {
		s.stats.dropped.Add(1)
		_, _ = conn.WriteToUDPAddrPort(s.plain(r.forward, dns.RcodeServerFailure).packet, from)
		return
	}
	go func() {
		defer done()
		answer := s.forward(r.forward, r.who, via{})
		_, _ = conn.WriteToUDPAddrPort(answer, from)
	}()
}

// idle is how long a connection may say nothing.
const idle = 8 * time.Second

// serveTCP lets connections in at one address until its socket is closed.
func (s *server) serveTCP(l net.Listener, gateway netip.Addr) {
	socket.Accept(context.Background(), l, s.log, func(conn net.Conn) {
		from, _ := conn.RemoteAddr().(*net.TCPAddr)
		at := arrival{source: from.AddrPort().Addr().Unmap().WithZone(""), gateway: gateway}
		done, ok := s.limits.connect(at.source)
		if !ok {
			s.stats.dropped.Add(1)
			_ = conn.Close()
			return
		}
		go func() {
			defer done()
			s.converse(&dns.Conn{Conn: conn}, at)
		}()
	})
}

// converse answers one query of a connection after the other.
func (s *server) converse(conn *dns.Conn, at arrival) {
	defer func() { _ = conn.Close() }()
	for {
		if conn.SetDeadline(time.Now().Add(idle)) != nil {
			return
		}
		packet, err := conn.ReadMsgHeader(nil)
		if err != nil {
			return
		}
		s.stats.queries.Add(1)
		if !s.limits.query(at.source) {
			s.stats.dropped.Add(1)
			return
		}
		r := s.respond(packet, at, via{tcp: true})
		if r.forward != nil {
			r.packet = s.forwardTCP(r)
		}
		if r.packet == nil {
			return
		}
		if _, err := conn.Write(r.packet); err != nil {
			return
		}
	}
}

func (s *server) forwardTCP(r reply) []byte {
	done, ok := s.limits.forward(r.who.addr)
	if !ok {
		s.stats.dropped.Add(1)
		return s.plain(r.forward, dns.RcodeServerFailure).packet
	}
	defer done()
	return s.forward(r.forward, r.who, via{tcp: true})
}
