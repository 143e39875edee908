package bridge

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

// ensureBridge returns the bridge, which it makes where there is none and brings
// up where it is down. A bridge is shared: nothing of this is undone.
func ensureBridge(p *nl.Pair, c *config) (b nl.Brief, err error) {
	b, err = nl.BriefByName(c.Bridge)
	if nl.NotFound(err) {
		if err := createBridge(p, c); err != nil {
			return b, err
		}
		b, err = nl.BriefByName(c.Bridge)
	}
	if err != nil {
		return b, err
	}
	if b.Driver != "bridge" {
		return b, cnierr.Config("failed to create bridge %q: %q already exists but is not a bridge", c.Bridge, c.Bridge)
	}
	if c.filtersVLANs() {
		if err := requireFiltering(p, c); err != nil {
			return b, err
		}
	}
	want := uint16(unix.IFF_UP)
	if c.PromiscMode {
		want |= unix.IFF_PROMISC
	}
	if b.Flags&want == want {
		return b, nil
	}
	// Router advertisements are off before it is up (CVE-2020-10749), whichever
	// of several ADDs made it, and though that one was killed.
	if b.Flags&unix.IFF_UP == 0 {
		if err := noRA(p, c.Bridge); err != nil {
			return b, err
		}
	}
	return b, p.Host.Do(nl.SetFlags("bring up "+c.Bridge, b.Index, uint32(want), uint32(want)))
}

// createBridge makes the bridge, down. Its MAC address is set at once: one that
// the kernel chooses changes with the ports.
func createBridge(p *nl.Pair, c *config) error {
	m := nl.NewLink("bridge", c.Bridge, 0)
	m.Ignore = []unix.Errno{unix.EEXIST} // by another ADD meanwhile
	m.Attr(unix.IFLA_ADDRESS, link.RandomMAC())
	mtu, err := c.bridgeMTU(p)
	if err != nil {
		return err
	}
	if mtu != 0 {
		m.Uint32(unix.IFLA_MTU, uint32(mtu))
	}
	m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, "bridge")
	if c.filtersVLANs() {
		m.Begin(unix.IFLA_INFO_DATA).Uint8(unix.IFLA_BR_VLAN_FILTERING, 1).End()
	}
	return p.Host.Do(m.End())
}

func noRA(p *nl.Pair, name string) error {
	// Hosts started with ipv6.disable=1 have no such key, and need none.
	return sysctl.Set(nil, p.Gate, sysctl.Setting{Key: "net/ipv6/conf/" + name + "/accept_ra", Value: "0", IfExists: true})
}

// requireFiltering refuses VLANs on a bridge that would not keep them apart:
// that would be isolation that is not there.
func requireFiltering(p *nl.Pair, c *config) error {
	l, err := p.Host.LinkByName(c.Bridge)
	if err != nil {
		return err
	}
	if flag(l.Info, unix.IFLA_BR_VLAN_FILTERING) {
		return nil
	}
	return cnierr.Newf(cnierr.UnsupportedField, "bridge %q: vlan has no effect: vlan_filtering is off (`ip link set %s type bridge vlan_filtering 1` turns it on)", c.Bridge, c.Bridge)
}

// flag reads an attribute of one byte as a bool.
func flag(attrs []byte, want uint16) (on bool) {
	nl.Attrs(attrs, func(typ uint16, d []byte) {
		on = on || typ == want && nl.Uint8(d) != 0
	})
	return on
}

// gatewayLink is the interface that holds the gateways: the bridge, or with a
// VLAN an interface of the host in that VLAN.
func (c *config) gatewayLink() string {
	if c.VLAN == 0 {
		return c.Bridge
	}
	return fmt.Sprintf("%s.%d", c.Bridge, c.VLAN)
}

// ensureGatewayLink returns the index of the gateways' interface. With a VLAN
// that is a VLAN device on the bridge, unless somebody made another of its name;
// coming up is the last step of making it.
//
// The reference makes a veth pair, of which one end is a port of the bridge. Where
// the host's rules see what passes a bridge (bridge-nf-call-iptables), a packet
// from a container then passes them twice: on its way from port to port it is
// masqueraded already, and the pair's other end drops it, as its source is an
// address of the host. To a VLAN device the bridge delivers as to itself.
func ensureGatewayLink(p *nl.Pair, c *config, bridge int) (int, error) {
	if c.VLAN == 0 {
		return bridge, nil
	}
	name := c.gatewayLink()
	b, err := nl.BriefByName(name)
	switch {
	case nl.NotFound(err):
		err = createGatewayVLAN(p, c, bridge)
	case err == nil && b.Flags&unix.IFF_UP != 0:
		return b.Index, nil
	}
	if err != nil {
		return 0, err
	}
	return setUpGatewayLink(p, c, bridge)
}

// createGatewayVLAN makes the VLAN device, down; where the kernel has none, the
// reference's pair.
func createGatewayVLAN(p *nl.Pair, c *config, bridge int) error {
	m := nl.NewLink("vlan", c.gatewayLink(), 0)
	m.Ignore = []unix.Errno{unix.EEXIST} // by another ADD meanwhile
	m.Uint32(unix.IFLA_LINK, uint32(bridge))
	m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, "vlan")
	m.Begin(unix.IFLA_INFO_DATA).Uint16(unix.IFLA_VLAN_ID, uint16(c.VLAN)).End().End()
	err := p.Host.Do(m)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return createGatewayPair(p, c, bridge)
	}
	return err
}

// createGatewayPair makes the pair, the gateways' end down.
func createGatewayPair(p *nl.Pair, c *config, bridge int) error {
	br, err := p.Host.LinkByIndex(bridge)
	if err != nil {
		return err
	}
	name, mac := c.gatewayLink(), link.RandomMAC()
	portName, portMAC := "br"+hex.EncodeToString(mac[2:]), link.RandomMAC()
	portMAC[0] = 0xfe // above others, of which the bridge takes the lowest
	m := nl.NewLink("veth", portName, unix.IFF_UP)
	m.Ignore = []unix.Errno{unix.EEXIST} // by another ADD meanwhile
	m.Attr(unix.IFLA_ADDRESS, portMAC).Uint32(unix.IFLA_MASTER, uint32(bridge)).Uint32(unix.IFLA_MTU, uint32(br.MTU))
	const peer = 1 // VETH_INFO_PEER
	m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, "veth").Begin(unix.IFLA_INFO_DATA).Begin(peer)
	m.Raw(nl.Ifinfomsg(0)).String(unix.IFLA_IFNAME, name).Attr(unix.IFLA_ADDRESS, mac).Uint32(unix.IFLA_MTU, uint32(br.MTU))
	return p.Host.Do(m.End().End().End())
}

// setUpGatewayLink has the bridge deliver the VLAN to the gateways' interface,
// where that is one of the two that ADD makes, and brings it up.
func setUpGatewayLink(p *nl.Pair, c *config, bridge int) (int, error) {
	name := c.gatewayLink()
	gw, err := p.Host.LinkByName(name)
	if err != nil {
		return 0, err
	}
	batch := []*nl.Message{nl.SetUp(name, gw.Index)}
	switch {
	case gw.Kind == "vlan" && gw.Parent == bridge:
		batch = append([]*nl.Message{bridgeVLAN(c.Bridge, bridge, uint16(c.VLAN))}, batch...)
	case gw.Kind == "veth":
		port := portConf{name: "of " + name, index: gw.Parent, vlan: uint16(c.VLAN), defaultPVID: c.preservedOrRemoved(p)}
		batch = append(port.vlanMessages(), batch...)
	}
	if err := noRA(p, name); err != nil {
		return 0, err
	}
	return gw.Index, p.Host.Do(batch...)
}

// gateways returns the addresses that the host has on the network: the
// gateways that IPAM names, or the first address of a subnet for which it names
// none; 0.0.0.0 and :: say that there is none. A container that had one of these
// addresses would take the bridge's place.
func gateways(ips []*current.IPConfig) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, ip := range ips {
		p, err := link.PrefixOf(ip.Address)
		if err != nil {
			return nil, err
		}
		gw := link.AddrOf(ip.Gateway)
		if gw.IsUnspecified() {
			continue
		}
		if !gw.IsValid() {
			gw = p.Masked().Addr().Next()
			ip.Gateway = gw.AsSlice()
		}
		if gw == p.Addr() {
			return nil, cnierr.Config("address %s: is the gateway's, which the bridge has (isGateway): have IPAM leave it out", gw)
		}
		all = append(all, netip.PrefixFrom(gw, p.Bits()))
	}
	return all, nil
}

// ensureAddress gives the link the gateway's address. A different address of
// the same family (IPv6: of an overlapping subnet), which is not a gateway either,
// is replaced with forceAddress and refused without it. added says that the link
// did not have it.
func (a *attachment) ensureAddress(gw nl.Addr, gws []netip.Prefix) (added bool, err error) {
	want, c, host := gw.Prefix, a.conf, a.net.Host
	have, err := host.Addrs(gw.Index)
	if err != nil {
		return false, err
	}
	var batch []*nl.Message
	for _, h := range have {
		switch {
		case h.Prefix == want:
			return false, nil
		case slices.Contains(gws, h.Prefix):
		case h.Prefix.Addr().Is4() != want.Addr().Is4(), h.Prefix.Addr().IsLinkLocalUnicast():
		case want.Addr().Is6() && !h.Prefix.Masked().Overlaps(want.Masked()):
		case !c.ForceAddress:
			return false, cnierr.Newf(cnierr.InvalidConfig, "%q already has an IP address different from %v (it has %v; forceAddress replaces it)", c.gatewayLink(), want, h.Prefix)
		default:
			batch = append(batch, nl.DelAddr(h))
		}
	}
	if want.Addr().Is6() && !c.EnableDAD {
		gw.Flags = unix.IFA_F_NODAD
		mac, err := a.gatewayMAC()
		if err != nil {
			return false, err
		}
		batch = append(batch, link.EnsureLinkLocal(gw.Index, mac, have)...)
	}
	add := nl.AddAddr(gw)
	add.Ignore = []unix.Errno{unix.EEXIST} // by another ADD meanwhile
	if err := host.Do(append(batch, add)...); err != nil {
		return false, err
	}
	return true, link.AwaitLocal(nil, host, gw)
}

// gatewayMAC is the hardware address of the gateways' interface.
func (a *attachment) gatewayMAC() (net.HardwareAddr, error) {
	if a.conf.VLAN == 0 {
		return a.bridge.MAC, nil
	}
	return nl.MACByName(a.conf.gatewayLink())
}
