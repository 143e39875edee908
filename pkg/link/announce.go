package link

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// announce6 tells the neighbours whose the IPv6 addresses are now: those that
// remember the address's last owner would send to it for up to eight seconds.
// The kernel does so itself only after duplicate address detection, seconds
// later, and never for an address without it. (For IPv4 it does: arp_notify.)
//
// What cannot be sent is no error: the neighbours find out in their own time.
func announce6(ns *netns.NS, s Setup, addrs []nl.Addr) {
	if s.MAC == nil || !hasV6(addrs) {
		return
	}
	fd, err := ns.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6)
	if err != nil {
		return
	}
	// Neighbour discovery is only heeded with the hop limit that no router has
	// touched; the free bind allows a source that is still tentative.
	const freeBind = 78 // IPV6_FREEBIND, since Linux 4.15
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, freeBind, 1)
	everybody := &unix.SockaddrInet6{Addr: netip.IPv6LinkLocalAllNodes().As16(), ZoneId: uint32(s.Index)}
	for _, a := range addrs {
		if ip := a.Prefix.Addr(); ip.Is6() {
			from := unix.PktInfo6(&unix.Inet6Pktinfo{Addr: ip.As16(), Ifindex: uint32(s.Index)})
			_, _ = unix.SendmsgN(fd, advertisement(ip, s.MAC), from, everybody, 0)
		}
	}
	_ = unix.Close(fd)
}

// advertisement is an unsolicited neighbour advertisement (RFC 4861, 4.4),
// which overrides what the neighbours have. The kernel fills in the checksum.
func advertisement(ip netip.Addr, mac net.HardwareAddr) []byte {
	const typ, override, targetLinkLayer = 136, 1 << 29, 2
	b := []byte{typ, 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, override)
	b = append(b, ip.AsSlice()...)
	return append(append(b, targetLinkLayer, 1), mac...)
}

// AnnounceOthers tells the neighbours where the addresses of the sandbox's other
// links are, for DEL of one. As long as two are on one network, each answers ARP for
// the addresses of both, and the neighbours remember either; for up to a minute
// they would send to the one that is deleted. IPv6 has no such answers.
//
// What cannot be sent is no error: the neighbours find out in their own time.
func AnnounceOthers(p *nl.Pair) {
	if p.Sandbox == nil {
		return
	}
	addrs, err := p.Sandbox.Addrs(0)
	if err != nil {
		return
	}
	for _, a := range addrs {
		if !a.Prefix.Addr().Is4() || a.Prefix.Addr().IsLoopback() {
			continue
		}
		if l, err := p.Sandbox.LinkByIndex(a.Index); err == nil && l.Up() && len(l.MAC) == 6 {
			announce4(p.NS, l, a.Prefix.Addr())
		}
	}
}

// announce4 broadcasts an ARP announcement (RFC 5227, 1.1), which overrides what the
// neighbours have.
func announce4(ns *netns.NS, l *nl.Link, ip netip.Addr) {
	fd, err := ns.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	b := []byte{0, unix.ARPHRD_ETHER, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, their lengths, request
	b = append(append(b, l.MAC...), ip.AsSlice()...)
	b = append(append(b, make([]byte, 6)...), ip.AsSlice()...)
	to := &unix.SockaddrLinklayer{Protocol: nl.NetworkOrder(unix.ETH_P_ARP), Ifindex: l.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	_ = unix.Sendto(fd, b, 0, to)
	_ = unix.Close(fd)
}

func hasV6(addrs []nl.Addr) bool {
	for _, a := range addrs {
		if a.Prefix.Addr().Is6() {
			return true
		}
	}
	return false
}
