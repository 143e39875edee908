//go:build linux && (amd64 || arm64)

package main

import "syscall"

const create = syscall.NLM_F_CREATE | syscall.NLM_F_EXCL

// ifinfo returns struct ifinfomsg.
func ifinfo(link uint32, flags byte) []byte {
	h := make([]byte, 0, 16)
	h = append(h, 0, 0, 0, 0)
	h = append(h, word(link)...)
	h = append(h, flags, 0, 0, 0)
	return append(h, flags, 0, 0, 0)
}

// mtu is what both ends get.
const mtu = 1500

// veth asks for the pair: the host end up, and in bridge where that is not 0, the peer in the sandbox.
func (s *socket) veth(w *wish, bridge uint32) {
	s.request(syscall.RTM_NEWLINK, create, ifinfo(0, syscall.IFF_UP)...)
	s.attr(syscall.IFLA_IFNAME, []byte(w.host)...)
	s.attr(syscall.IFLA_ADDRESS, w.hostMAC...)
	s.attr32(syscall.IFLA_MTU, mtu)
	if bridge != 0 {
		s.attr32(syscall.IFLA_MASTER, bridge)
	}
	s.begin(syscall.IFLA_LINKINFO)
	s.attr(1, []byte("veth")...)
	s.begin(2)
	s.begin(vethInfoPeer)
	s.buf = append(s.buf, ifinfo(0, 0)...)
	s.sandboxEnd(w)
	s.end()
	s.end()
	s.end()
}

// macvlan asks for a macvlan on parent, born in the sandbox.
func (s *socket) macvlan(w *wish, parent uint32) {
	s.request(syscall.RTM_NEWLINK, create, ifinfo(0, 0)...)
	s.sandboxEnd(w)
	s.attr32(syscall.IFLA_LINK, parent)
	s.begin(syscall.IFLA_LINKINFO)
	s.attr(1, []byte("macvlan")...)
	s.begin(2)
	s.attr32(macvlanMode, macvlanBridge)
	s.end()
	s.end()
}

// sandboxEnd appends what the interface in the sandbox is made with.
func (s *socket) sandboxEnd(w *wish) {
	s.attr(syscall.IFLA_IFNAME, []byte(w.ifName)...)
	s.attr(syscall.IFLA_ADDRESS, w.mac...)
	s.attr32(syscall.IFLA_MTU, mtu)
	s.attr32(iflaNetNSFD, uint32(w.sandbox))
}

// up asks for the link to be brought up.
func (s *socket) up(link uint32) {
	s.request(syscall.RTM_NEWLINK, 0, ifinfo(link, syscall.IFF_UP)...)
}

// noLinkLocal asks for no IPv6 link-local address on link. It saves an IPv4-only sandbox duplicate address detection and
// multicast reports. The kernel refuses it in the request that creates the link, and heeds it too late in the one that
// brings it up.
func (s *socket) noLinkLocal(link uint32) {
	s.request(syscall.RTM_NEWLINK, 0, ifinfo(link, 0)...)
	s.begin(iflaAFSpec)
	s.begin(syscall.AF_INET6)
	s.attr(iflaInet6AddrGen, addrGenNone)
	s.end()
	s.end()
}

// del asks for the link called name to be deleted.
func (s *socket) del(name string) {
	s.request(syscall.RTM_DELLINK, 0, ifinfo(0, 0)...)
	s.attr(syscall.IFLA_IFNAME, []byte(name)...)
}

// address asks for p on link. IPv6 addresses skip duplicate address detection.
func (s *socket) address(link uint32, p prefix, flags uint32) {
	h := append([]byte{p.addr.family(), p.bits, 0, 0}, word(link)...)
	s.request(syscall.RTM_NEWADDR, create, h...)
	if flags&flagMayExist != 0 {
		s.mayExist |= 1 << s.seq
		flags &^= flagMayExist
	}
	s.attr(syscall.IFA_LOCAL, p.addr...)
	s.attr(syscall.IFA_ADDRESS, p.addr...)
	if len(p.addr) == 4 && p.bits < 31 {
		broadcast := p.masked().addr
		for i := range broadcast {
			broadcast[i] |= ^byte(0xff << (8 - min(max(int(p.bits)-8*i, 0), 8)))
		}
		s.attr(syscall.IFA_BROADCAST, broadcast...)
	}
	if len(p.addr) == 16 {
		flags |= addrNoDAD
	}
	s.attr32(ifaFlags, flags)
}

// route asks for r.
func (s *socket) route(r route) {
	family := r.family
	if family == 0 {
		family = r.dst.addr.family()
	}
	h := []byte{
		family, r.dst.bits, 0, 0, syscall.RT_TABLE_MAIN, syscall.RTPROT_BOOT, r.scope, syscall.RTN_UNICAST,
		0, 0, 0, 0,
	}
	s.request(syscall.RTM_NEWROUTE, create, h...)
	if len(r.dst.addr) > 0 {
		s.attr(syscall.RTA_DST, r.dst.addr...)
	}
	if len(r.via) > 0 {
		s.attr(syscall.RTA_GATEWAY, r.via...)
	}
	if len(r.src) > 0 {
		s.attr(syscall.RTA_PREFSRC, r.src...)
	}
	s.attr32(syscall.RTA_OIF, r.link)
}
