package trial

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/ipmath"
	"github.com/netcleat/netcleat/pkg/netns"
)

const (
	tries  = 3
	wait   = time.Second // for one answer
	served = 8080        // the port of the sandbox that is published
)

// newNamespace makes a network namespace that lasts as long as its descriptor, by which
// plugins find it.
func newNamespace() (*netns.NS, error) {
	runtime.LockOSThread()
	back, err := netns.Open(netns.Own)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	ns, err := unshared()
	if berr := unix.Setns(back.Fd(), unix.CLONE_NEWNET); berr != nil {
		err = errors.Join(err, fmt.Errorf("leave the new network namespace: %w", berr)) // the thread stays locked, and dies with its goroutine
	} else {
		runtime.UnlockOSThread()
	}
	if err = errors.Join(err, back.Close()); err != nil {
		return nil, err
	}
	ns.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
	return ns, nil
}

// unshared moves the thread to a new namespace.
func unshared() (*netns.NS, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("new network namespace: %w", err)
	}
	return netns.Open(netns.Own)
}

// errSilence is what a ping that nothing answers ends with.
var errSilence = fmt.Errorf("no answer to %d packets", tries)

// ping sends echo requests from ns until one is answered.
func ping(ctx context.Context, ns *netns.NS, to netip.Addr) (err error) {
	domain, protocol, request, reply := unix.AF_INET, unix.IPPROTO_ICMP, byte(8), byte(0)
	if to.Is6() {
		domain, protocol, request, reply = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128, 129
	}
	fd, err := ns.Socket(domain, unix.SOCK_RAW, protocol)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "ping")
	c, err := net.FilePacketConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	packet := binary.BigEndian.AppendUint32([]byte{request, 0, 0, 0}, rand.Uint32())
	if to.Is4() { // the kernel sums up ICMPv6 itself
		binary.BigEndian.PutUint16(packet[2:], ipmath.Checksum(0, packet))
	}
	for range tries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := c.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()}); err != nil && !transient(err) {
			return err
		}
		answered, err := awaits(c, packet[4:], reply)
		if answered || err != nil {
			return err
		}
	}
	return errSilence
}

// transient reports whether sending failed for a neighbour that has not answered yet, or an
// address that is still being looked for.
func transient(err error) bool {
	return errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// awaits waits for a reply to the identifier for a while.
func awaits(c net.PacketConn, id []byte, reply byte) (answered bool, err error) {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return false, err
	}
	b := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), err != nil && transient(err):
			return false, nil
		case err != nil:
			return false, err
		case n >= 8 && b[0] == reply && bytes.Equal(b[4:8], id):
			return true, nil
		}
	}
}

func sockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}, unix.AF_INET6
}

// dial connects a socket of ns, which nil says is the own one.
func dial(ctx context.Context, ns *netns.NS, typ int, to netip.AddrPort) (net.Conn, error) {
	if ns == nil {
		soon, cancel := context.WithTimeout(ctx, tries*wait)
		defer cancel()
		return (&net.Dialer{}).DialContext(soon, "tcp", to.String())
	}
	sa, domain := sockaddr(to)
	fd, err := ns.Socket(domain, typ, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer func() { _ = f.Close() }() // the connection has its own descriptor
	limit := unix.NsecToTimeval(int64(tries * wait))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return nil, err
	}
	err = unix.Connect(fd, sa)
	if errors.Is(err, unix.EINPROGRESS) {
		err = unix.ETIMEDOUT
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return net.FileConn(f)
}

// serve says the word to everyone who connects, until it is stopped.
func serve(ns *netns.NS, at netip.AddrPort, word string) (stop func(), err error) {
	sa, domain := sockaddr(at)
	fd, err := ns.Socket(domain, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer func() { _ = f.Close() }() // the listener has its own descriptor
	const backlog = 8
	if err := errors.Join(unix.Bind(fd, sa), unix.Listen(fd, backlog)); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", at, err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, word) // who does not get it says so
			_ = c.Close()
		}
	}()
	return func() { _ = l.Close() }, nil
}

// ask connects and wants to hear the word.
func ask(ctx context.Context, ns *netns.NS, at netip.AddrPort, word string) (err error) {
	c, err := dial(ctx, ns, unix.SOCK_STREAM, at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.SetDeadline(time.Now().Add(tries * wait)); err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(c, int64(len(word))))
	if err == nil && string(b) != word {
		err = errors.New("something else than the sandbox answers")
	}
	return err
}

// freePort returns a port that no process of the host has.
func freePort() (int, error) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// hostAddr is an address of the host in the family: the one that it has towards the world, or
// else the gateway's.
func hostAddr(ip address) netip.Addr {
	world := "192.0.2.255:9" // no packet is sent
	if ip.Addr().Is6() {
		world = "[2001:db8::ff]:9"
	}
	if c, err := net.Dial("udp", world); err == nil {
		defer func() { _ = c.Close() }() // nothing was sent
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok && !a.IP.IsLoopback() {
			return a.AddrPort().Addr().Unmap()
		}
	}
	return ip.gateway
}

// dnsConf is what the network says of names.
type dnsConf struct {
	servers []string
	domain  string
}

// resolve asks a server for the other box.
func (b *box) resolve(ctx context.Context, server netip.Addr, other *box) error {
	name := other.name
	if b.dns.domain != "" {
		name += "." + b.dns.domain
	}
	c, err := dial(ctx, b.ns, unix.SOCK_DGRAM, netip.AddrPortFrom(server, 53))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // the answer is there
	typ := dns.TypeA
	if other.ips[0].Addr().Is6() {
		typ = dns.TypeAAAA
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), typ)
	client := dns.Client{Timeout: tries * wait}
	r, _, err := client.ExchangeWithConnContext(ctx, m, &dns.Conn{Conn: c})
	if err != nil {
		return err
	}
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok && other.has(a.A) {
			return nil
		}
		if a, ok := rr.(*dns.AAAA); ok && other.has(a.AAAA) {
			return nil
		}
	}
	return fmt.Errorf("%s: %s, and not its address", name, dns.RcodeToString[r.Rcode])
}

// has reports whether the address is the box's.
func (b *box) has(ip net.IP) bool {
	a, _ := netip.AddrFromSlice(ip)
	return slices.ContainsFunc(b.ips, func(p address) bool { return p.Addr() == a.Unmap() })
}
