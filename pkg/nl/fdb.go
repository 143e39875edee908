package nl

import (
	"encoding/binary"
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
	m := f.message("set", unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, staticEntry)
	if f.Host.IsValid() {
		m.IP(unix.NDA_DST, f.Host)
	}
	return m
}

// DelFDB deletes a forwarding entry: with Host a VXLAN interface's own, else the
// bridge's. What is not there is success.
func DelFDB(f FDB) *Message {
	m := f.message("delete", unix.RTM_DELNEIGH, 0, 0)
	if f.Host.IsValid() {
		m.body[ndmFlags] = unix.NTF_SELF
	}
	m.Forgive = []unix.Errno{unix.ENOENT, unix.ENODEV}
	return m
}

// ndmFlags is where struct ndmsg has its flags.
const ndmFlags = 10

func (f FDB) message(what string, typ, flags, state uint16) *Message {
	h := make([]byte, unix.SizeofNdMsg)
	h[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(h[4:], uint32(f.Index))
	binary.NativeEndian.PutUint16(h[8:], state)
	h[ndmFlags] = unix.NTF_MASTER
	if f.Host.IsValid() {
		h[ndmFlags] |= unix.NTF_SELF
	}
	return NewMessage(what+" forwarding of "+f.MAC.String(), typ, flags, h...).Attr(unix.NDA_LLADDR, f.MAC)
}
