package nltest

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
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
	for deadline := time.Now().Add(time.Minute); b.IP("-6", "route", "show", "table", "local", ip.String()) == ""; {
		if time.Now().After(deadline) {
			b.t.Fatalf("no route to %s", addr)
		}
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

// NewLAN gives the host a link called name, as a network card is, and returns
// what is at the other end of the cable: a router with the addresses, which are
// usable at once.
func (b *Bed) NewLAN(name string, addrs ...string) *netns.NS {
	b.t.Helper()
	lan := b.NewSandbox()
	b.IP("link", "add", name, "type", "veth", "peer", "name", "lan0", "netns", b.PathOf(lan))
	b.IP("link", "set", name, "up")
	b.In(lan, func() {
		b.IP("link", "set", "lo", "up")
		b.IP("link", "set", "lan0", "up")
		for _, a := range addrs {
			b.IP("addr", "add", a, "dev", "lan0", "nodad")
		}
	})
	return lan
}
