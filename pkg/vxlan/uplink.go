package vxlan

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Uplink is an uplink as the kernel has it.
type Uplink struct {
	*nl.Link
	ID    int
	Port  int
	Local netip.Addr
	Dev   int // the index of the interface that packets are bound to; 0 is none
}

// Read returns what a link is as an uplink; ok is false for one of another kind.
func Read(l *nl.Link) (u Uplink, ok bool) {
	if l.Kind != "vxlan" {
		return u, false
	}
	u.Link = l
	nl.Attrs(l.Info, func(typ uint16, d []byte) {
		switch typ {
		case unix.IFLA_VXLAN_ID:
			u.ID = int(nl.Uint32(d))
		case unix.IFLA_VXLAN_LINK:
			u.Dev = int(nl.Uint32(d))
		case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
			u.Local, _ = netip.AddrFromSlice(d)
		case unix.IFLA_VXLAN_PORT:
			u.Port = int(nl.NetworkOrder(nl.Uint16(d)))
		}
	})
	return u, true
}

// Ensure returns the uplink of a bridge, which it makes where there is none. Like the
// bridge it is the network's: nothing of this is undone.
//
// The caller brings it up (BringUp), which is the last step of making it: one that is up is
// ready.
func (c *Conf) Ensure(host *nl.Conn, bridge, mtu int) (u Uplink, err error) {
	l, err := host.LinkByName(c.Name())
	if nl.NotFound(err) {
		if err := c.create(host, bridge, mtu); err != nil {
			return u, err
		}
		l, err = host.LinkByName(c.Name())
	}
	if nl.NotFound(err) {
		return u, cnierr.Newf(cnierr.InvalidConfig, "vxlan: id %d on port %d is that of another interface of the host (`ip -d link show type vxlan`)", c.ID, c.Port)
	}
	if err != nil {
		return u, err
	}
	if u, err = c.accept(l, bridge); err != nil || l.Up() {
		return u, err
	}
	return u, host.Do(asPort(l)...)
}

// BringUp finishes an uplink that Ensure has made.
func (u Uplink) BringUp(host *nl.Conn) error {
	if u.Link == nil || u.Up() {
		return nil
	}
	return host.Do(nl.SetUp("port "+u.Name, u.Index))
}

// accept refuses a link that is not this network's uplink.
func (c *Conf) accept(l *nl.Link, bridge int) (u Uplink, err error) {
	u, ok := Read(l)
	switch {
	case !ok:
		return u, cnierr.Config("vxlan: %s exists and is not a VXLAN interface", l.Name)
	case u.ID != c.ID || u.Port != c.Port:
		return u, cnierr.Config("vxlan: %s exists with id %d and port %d, not %d and %d (`ip link del %s` removes it)", l.Name, u.ID, u.Port, c.ID, c.Port, l.Name)
	case l.Master != bridge:
		return u, cnierr.Config("vxlan: %s exists and is not a port of this network's bridge: another network has id %d, or it was made by hand", l.Name, c.ID)
	}
	return u, nil
}

// create makes the uplink, down, as a port of the bridge.
func (c *Conf) create(host *nl.Conn, bridge, mtu int) error {
	under, err := c.Underlay(host)
	if err != nil {
		return err
	}
	if mtu, err = under.limit(mtu); err != nil {
		return err
	}
	m := nl.NewLink("vxlan", c.Name(), 0)
	m.Ignore = []unix.Errno{unix.EEXIST} // by another ADD meanwhile
	m.Attr(unix.IFLA_ADDRESS, uplinkMAC()).Uint32(unix.IFLA_MTU, uint32(mtu)).Uint32(unix.IFLA_MASTER, uint32(bridge))
	m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, "vxlan").Begin(unix.IFLA_INFO_DATA)
	m.Uint32(unix.IFLA_VXLAN_ID, uint32(c.ID)).Uint8(unix.IFLA_VXLAN_LEARNING, 0)
	m.Uint16(unix.IFLA_VXLAN_PORT, nl.NetworkOrder(uint16(c.Port)))
	if under.Addr.Is4() {
		m.IP(unix.IFLA_VXLAN_LOCAL, under.Addr)
	} else {
		m.IP(unix.IFLA_VXLAN_LOCAL6, under.Addr)
	}
	if under.dev != 0 {
		m.Uint32(unix.IFLA_VXLAN_LINK, uint32(under.dev))
	}
	return host.Do(m.End().End())
}

// limit returns the MTU of the network: what was asked for, where it fits, or else
// the largest.
func (u Underlay) limit(asked int) (int, error) {
	if asked > u.MTU {
		return 0, cnierr.Config("mtu %d: with vxlan at most %d fits, since packets between hosts are larger", asked, u.MTU)
	}
	if asked != 0 {
		return asked, nil
	}
	return u.MTU, nil
}

// MTU returns the MTU of a network that is to be made.
func (c *Conf) MTU(host *nl.Conn, asked int) (int, error) {
	u, err := c.Underlay(host)
	if err != nil {
		return 0, err
	}
	return u.limit(asked)
}

// asPort makes the uplink a port from which the bridge does not learn, and for which it
// answers ARP and ND where it has entries.
func asPort(l *nl.Link) []*nl.Message {
	port := nl.SetLink("set port "+l.Name, l.Index)
	port.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_SLAVE_KIND, "bridge").Begin(unix.IFLA_INFO_SLAVE_DATA)
	port.Uint8(unix.IFLA_BRPORT_LEARNING, 0).Uint8(unix.IFLA_BRPORT_NEIGH_SUPPRESS, 1).End().End()
	return []*nl.Message{port, nl.NoAddresses("port "+l.Name, l.Index)}
}

// Suppresses reports whether the bridge answers ARP and ND for the uplink.
func (u Uplink) Suppresses() (on bool) {
	nl.Attrs(u.PortInfo, func(typ uint16, d []byte) {
		on = on || typ == unix.IFLA_BRPORT_NEIGH_SUPPRESS && nl.Uint8(d) != 0
	})
	return on
}

// uplinkMAC is random, and above the addresses of network cards, so that no bridge takes it.
func uplinkMAC() net.HardwareAddr {
	m := link.RandomMAC()
	m[0] = 0xfe
	return m
}
