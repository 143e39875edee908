package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// dadWait bounds the wait for duplicate address detection, which takes the
// kernel up to two seconds with its default of one probe.
const dadWait = 10 * time.Second

// waitDAD waits until no address of the link is tentative any more.
func waitDAD(p *nl.Pair, index int) error {
	w, err := nl.NewWatch(p.NS, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return err
	}
	err = w.Until(time.Now().Add(dadWait), func() (bool, error) {
		addrs, err := p.Sandbox.Addrs(index)
		if err != nil {
			return false, err
		}
		return settled(addrs)
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("duplicate address detection has not ended after %v", dadWait)
	}
	return errors.Join(err, w.Close())
}

// EnsureLinkLocal gives a link of the host the link-local address that the kernel
// would give it, usable at once: without one that is, the host cannot ask for a
// neighbour on behalf of others, and the kernel's own is not for one to two
// seconds after the link has its first carrier. have are the addresses that the
// link has: one that the kernel is still looking for duplicates of is replaced.
func EnsureLinkLocal(index int, mac net.HardwareAddr, have []nl.Addr) []*nl.Message {
	ip := [16]byte{0xfe, 0x80, 11: 0xff, 12: 0xfe}
	copy(ip[8:], mac[:3])
	copy(ip[13:], mac[3:])
	ip[8] ^= 2 // EUI-64 (RFC 4291, appendix A)
	a := nl.Addr{Index: index, Prefix: netip.PrefixFrom(netip.AddrFrom16(ip), 64), Scope: unix.RT_SCOPE_LINK, Flags: unix.IFA_F_NODAD}
	var all []*nl.Message
	for _, h := range have {
		if h.Prefix == a.Prefix && h.Flags&unix.IFA_F_TENTATIVE != 0 {
			all = append(all, nl.DelAddr(h))
		}
	}
	add := nl.AddAddr(a)
	add.Ignore = []unix.Errno{unix.EEXIST}
	return append(all, add)
}

func settled(addrs []nl.Addr) (bool, error) {
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_DADFAILED != 0 {
			return false, fmt.Errorf("address %s: duplicate: another host on the link has it", a.Prefix)
		}
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			return false, nil
		}
	}
	return true, nil
}
