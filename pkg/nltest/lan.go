package nltest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Plug makes a veth pair between the host (hostName, a port of bridge unless
// that is "") and ns (eth0 there), with the addresses on the inner end.
func (b *Bed) Plug(ns *netns.NS, hostName, bridge string, addrs ...string) {
	b.t.Helper()
	noDAD(b)
	b.In(ns, func() { noDAD(b) })
	b.IP("link", "add", hostName, "type", "veth", "peer", "name", "tmp-"+hostName)
	b.IP("link", "set", "tmp-"+hostName, "netns", b.PathOf(ns), "name", "eth0")
	if bridge != "" {
		b.IP("link", "set", hostName, "master", bridge)
	}
	b.IP("link", "set", hostName, "up")
	b.In(ns, func() {
		b.IP("link", "set", "lo", "up")
		b.IP("link", "set", "eth0", "up")
		for _, a := range addrs {
			b.Addr("eth0", a)
		}
	})
}

// noDAD has links made from now on use their IPv6 addresses at once.
func noDAD(b *Bed) {
	must(b.t, os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644))
}

// Addr gives a link an address that can be used at once. The kernel brings an
// IPv6 address's route a moment later: Addr waits for that.
func (b *Bed) Addr(link, addr string) {
	b.t.Helper()
	ip, _, err := net.ParseCIDR(addr)
	must(b.t, err)
	if ip.To4() != nil {
		b.IP("addr", "add", addr, "dev", link)
		return
	}
	b.IP("addr", "add", addr, "dev", link, "nodad")
	b.AwaitLocal(ip)
}

// AwaitLocal waits for the route to an IPv6 address of the thread's namespace,
// which the kernel brings a moment after the address.
func (b *Bed) AwaitLocal(ip net.IP) {
	b.t.Helper()
	w, err := nl.NewWatch(nil, unix.RTNLGRP_IPV6_ROUTE)
	must(b.t, err)
	route := fmt.Appendf(nil, "%x 80 ", []byte(ip.To16()))
	err = w.Until(time.Now().Add(time.Minute), func() (bool, error) {
		routes, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
		return bytes.Contains(routes, route), err
	})
	if err := errors.Join(err, w.Close()); err != nil {
		b.t.Fatalf("no route to %s: %v", ip, err)
	}
}

// Bridge makes a bridge on the host with the addresses.
func (b *Bed) Bridge(name string, addrs ...string) {
	b.t.Helper()
	noDAD(b)
	b.IP("link", "add", name, "type", "bridge")
	b.IP("link", "set", name, "up")
	for _, a := range addrs {
		b.Addr(name, a)
	}
}

// Forward lets the host route.
func (b *Bed) Forward() {
	b.t.Helper()
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		must(b.t, os.WriteFile("/proc/sys/"+key, []byte("1"), 0o644))
	}
}

// Serve answers each connection to addr in ns ("tcp", "127.0.0.1:80") and each
// datagram with the peer's address, until the test ends.
func (b *Bed) Serve(ns *netns.NS, network, addr string) {
	b.t.Helper()
	b.In(ns, func() {
		if network == "udp" {
			c, err := net.ListenPacket(network, addr)
			must(b.t, err)
			b.t.Cleanup(func() { _ = c.Close() })
			go answerPackets(c)
			return
		}
		l, err := net.Listen(network, addr)
		must(b.t, err)
		b.t.Cleanup(func() { _ = l.Close() })
		go answerConns(l)
	})
}

func answerConns(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, host(c.RemoteAddr()))
		_ = c.Close()
	}
}

func answerPackets(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo([]byte(host(from)), from)
	}
}

func host(a net.Addr) string {
	h, _, _ := net.SplitHostPort(a.String())
	return h
}

// patience is how long Ask waits for an answer that may never come.
const patience = 250 * time.Millisecond

// Ask connects from ns to addr and returns what Serve answered: under which
// address it saw the asker. "" means that there was no answer.
func (b *Bed) Ask(ns *netns.NS, network, addr string) (answer string) {
	b.t.Helper()
	b.In(ns, func() {
		d := net.Dialer{Timeout: patience}
		c, err := d.Dial(network, addr)
		if err != nil {
			if errors.Is(err, unix.EMFILE) {
				b.t.Fatal(err)
			}
			return
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(patience))
		if network == "udp" {
			_, _ = io.WriteString(c, "?")
		}
		buf := make([]byte, 100)
		n, _ := c.Read(buf)
		answer = string(buf[:n])
	})
	return answer
}

// Pings reports whether one echo request from ns to addr is answered in time.
// It starts no process.
func (b *Bed) Pings(ns *netns.NS, addr string, wait time.Duration) (answered bool) {
	b.t.Helper()
	to, err := netip.ParseAddr(addr)
	must(b.t, err)
	b.In(ns, func() { answered = b.ping(to, wait) })
	return answered
}

// Reaches fails the test unless an echo request from ns to each address is
// answered within 2 s.
func (b *Bed) Reaches(ns *netns.NS, addrs ...string) {
	b.t.Helper()
	for _, a := range addrs {
		if !b.Pings(ns, a, 2*time.Second) {
			b.t.Fatalf("%s does not answer\n%s", a, b.whereabouts(ns))
		}
	}
}

// whereabouts is what explains that an address is not reached.
func (b *Bed) whereabouts(ns *netns.NS) (text string) {
	b.In(ns, func() { text = b.IPBatch("addr\nroute show table all\nneigh\n") })
	return text
}

// echo is how one family says ping. The kernel fills in ICMPv6's checksum.
type echo struct {
	family, protocol int
	request          []byte
	reply            byte // type of the answer
	header           int  // bytes before the answer's type
}

// ping sends an echo request from the thread's namespace and awaits the answer.
func (b *Bed) ping(to netip.Addr, wait time.Duration) bool {
	b.t.Helper()
	e, dst := echo{unix.AF_INET6, unix.IPPROTO_ICMPV6, []byte{128, 0, 0, 0, 0, 0, 0, 0}, 129, 0}, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.As16()})
	if to.Is4() {
		e, dst = echo{unix.AF_INET, unix.IPPROTO_ICMP, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, 0, 20}, &unix.SockaddrInet4{Addr: to.As4()}
	}
	fd, err := unix.Socket(e.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, e.protocol)
	must(b.t, err)
	defer func() { _ = unix.Close(fd) }()
	if unix.Sendto(fd, e.request, 0, dst) != nil {
		return false // no route, or an address that is tentative
	}
	for end := time.Now().Add(wait); ; {
		left := unix.NsecToTimeval(max(int64(time.Until(end)), int64(time.Microsecond)))
		must(b.t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &left))
		buf := make([]byte, 1500)
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			return false
		}
		if n > e.header && buf[e.header] == e.reply && sender(from) == to {
			return true
		}
	}
}

// sender is the address of a datagram's sender.
func sender(from unix.Sockaddr) netip.Addr {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr)
	}
	return netip.Addr{}
}

// NewLAN gives the host a link called name, as a network card is, and returns
// what is at the other end of the cable: a router with the addresses, which are
// usable at once.
func (b *Bed) NewLAN(name string, addrs ...string) *netns.NS {
	b.t.Helper()
	lan := b.NewSandbox()
	b.loUp(lan)
	b.IPBatch(fmt.Sprintf("link add %s up type veth peer name lan0 netns %s", name, b.PathOf(lan)))
	commands := "link set lan0 up\n"
	for _, a := range addrs {
		commands += "addr add " + a + " dev lan0 nodad\n"
	}
	b.In(lan, func() { b.IPBatch(commands) })
	return lan
}
