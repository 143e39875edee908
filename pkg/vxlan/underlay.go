package vxlan

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
)

// What an uplink puts before each Ethernet frame: headers of IP, UDP and VXLAN, and
// the frame's own.
const (
	overhead4 = 20 + 8 + 8 + 14
	overhead6 = 40 + 8 + 8 + 14
)

// loopbackMTU is taken for the underlay's where the address is the loopback
// interface's, as on the leaves of a fabric: its own says nothing.
const loopbackMTU = 1500

// Underlay is where an uplink's packets leave the host.
type Underlay struct {
	Addr netip.Addr
	MTU  int // of the frames' contents
	dev  int // the index of the interface that the packets are bound to; 0 is none
}

// Underlay looks up the host's side of the key.
func (c *Conf) Underlay(host *nl.Conn) (u Underlay, err error) {
	if c.Dev != "" {
		return c.ofDev(host)
	}
	u.Addr, err = netip.ParseAddr(c.Local)
	if err != nil {
		return u, err
	}
	addrs, err := host.Addrs(0)
	if err != nil {
		return u, err
	}
	for _, a := range addrs {
		if a.Prefix.Addr() != u.Addr {
			continue
		}
		l, err := host.LinkByIndex(a.Index)
		if err != nil {
			return u, err
		}
		u.MTU = l.MTU
		if l.Flags&unix.IFF_LOOPBACK != 0 {
			u.MTU = loopbackMTU
		}
		return u.inside(), nil
	}
	return u, cnierr.Newf(cnierr.TryAgain, "vxlan: local %s: no interface of the host has it", u.Addr)
}

// ofDev takes the first address of the interface that others reach; IPv4 goes first.
func (c *Conf) ofDev(host *nl.Conn) (u Underlay, err error) {
	l, err := host.LinkByName(c.Dev)
	if nl.NotFound(err) {
		return u, cnierr.Newf(cnierr.TryAgain, "vxlan: dev %s: the host has no such interface", c.Dev)
	}
	if err != nil {
		return u, err
	}
	addrs, err := host.Addrs(l.Index)
	if err != nil {
		return u, err
	}
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		if ip.IsLinkLocalUnicast() || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_TEMPORARY|unix.IFA_F_DADFAILED) != 0 && ip.Is6() {
			continue
		}
		if !u.Addr.IsValid() || u.Addr.Is6() && ip.Is4() {
			u.Addr = ip
		}
	}
	if !u.Addr.IsValid() {
		return u, cnierr.Newf(cnierr.TryAgain, "vxlan: dev %s: has no address yet that other hosts reach", c.Dev)
	}
	u.MTU, u.dev = l.MTU, l.Index
	return u.inside(), nil
}

// inside takes off what the uplink puts before each frame.
func (u Underlay) inside() Underlay {
	if u.Addr.Is4() {
		u.MTU -= overhead4
	} else {
		u.MTU -= overhead6
	}
	return u
}
