package nl

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// FDB is a forwarding entry of a port of a bridge: frames to the MAC address leave by
// the port. That of a VXLAN interface also says to which host.
type FDB struct {
	Index int // of the port
	MAC   net.HardwareAddr
	Host  netip.Addr // the other end of a VXLAN interface; not valid for other ports
}

// SetFDB adds or replaces a forwarding entry that does not age: the bridge's, and for
// a VXLAN interface its own.
func SetFDB(f FDB) *Message {
	const staticEntry = unix.NUD_NOARP | unix.NUD_REACHABLE // what both take for one
	h := unix.NdMsg{State: staticEntry, Flags: unix.NTF_MASTER}
	if f.Host.IsValid() {
		h.Flags |= unix.NTF_SELF
	}
	m := f.message("set", unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h)
	if f.Host.IsValid() {
		m.IP(unix.NDA_DST, f.Host)
	}
	return m
}

// DelFDB deletes a forwarding entry: with Host a VXLAN interface's own, else the
// bridge's. What is not there is success.
func DelFDB(f FDB) *Message {
	h := unix.NdMsg{Flags: unix.NTF_MASTER}
	if f.Host.IsValid() {
		h.Flags = unix.NTF_SELF
	}
	m := f.message("delete", unix.RTM_DELNEIGH, 0, h)
	m.Ignore = []unix.Errno{unix.ENOENT, unix.ENODEV}
	return m
}

func (f FDB) message(what string, typ, flags uint16, h unix.NdMsg) *Message {
	h.Family, h.Ifindex = unix.AF_BRIDGE, int32(f.Index)
	return NewMessage(what+" forwarding of "+f.MAC.String(), typ, flags, ndmsg(h)...).Attr(unix.NDA_LLADDR, f.MAC)
}
