package bridge

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/veth"
)

// portConf is how the host's end of a pair is set up as a port of the bridge.
type portConf struct {
	name     string
	index    int
	alias    string
	hairpin  bool
	isolated bool
	vlan     uint16 // access VLAN; 0 is none
	trunk    []vlanRange
	// defaultPVID is the VLAN that the bridge gives every new port, where the
	// port is not to keep it; 0 leaves it.
	defaultPVID uint16
	// only is the one MAC address for which the port gets frames; nil: also what the
	// bridge has no entry for.
	only net.HardwareAddr
}

func (c *config) port(p *nl.Pair, host veth.End, alias string) portConf {
	pc := portConf{
		name: host.Name, index: host.Index, alias: alias,
		hairpin: c.HairpinMode, isolated: c.PortIsolation, vlan: uint16(c.VLAN), trunk: c.vlans,
	}
	if c.filtersVLANs() {
		pc.defaultPVID = c.preservedOrRemoved(p)
	}
	return pc
}

// preservedOrRemoved returns the VLAN to take off new ports: the bridge's
// default one, or 0 where the configuration preserves it.
func (c *config) preservedOrRemoved(p *nl.Pair) uint16 {
	const kernelDefault = 1
	if c.PreserveDefaultVLAN {
		return 0
	}
	l, err := p.Host.LinkByName(c.Bridge)
	if err != nil {
		return kernelDefault
	}
	return attr16(l.Info, unix.IFLA_BR_VLAN_DEFAULT_PVID, kernelDefault)
}

func attr16(attrs []byte, want, def uint16) uint16 {
	nl.Attrs(attrs, func(typ uint16, d []byte) {
		if typ == want && len(d) >= 2 {
			def = nl.Uint16(d)
		}
	})
	return def
}

// messages sets the port up, and brings it up when all of that holds: it is not
// yet in its VLAN, or isolated, before.
func (pc portConf) messages() []*nl.Message {
	m := nl.SetLink("set port "+pc.name, pc.index)
	if pc.alias != "" {
		m.Attr(unix.IFLA_IFALIAS, []byte(pc.alias))
	}
	if pc.hairpin || pc.isolated || pc.only != nil {
		m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_SLAVE_KIND, "bridge").Begin(unix.IFLA_INFO_SLAVE_DATA)
		if pc.hairpin {
			m.Uint8(unix.IFLA_BRPORT_MODE, 1)
		}
		if pc.isolated {
			m.Uint8(unix.IFLA_BRPORT_ISOLATED, 1)
		}
		if pc.only != nil {
			m.Uint8(unix.IFLA_BRPORT_UNICAST_FLOOD, 0)
		}
		m.End().End()
	}
	all := append([]*nl.Message{m, nl.NoAddresses("port "+pc.name, pc.index)}, pc.vlanMessages()...)
	if pc.only != nil {
		all = append(all, nl.SetFDB(nl.FDB{Index: pc.index, MAC: pc.only}))
	}
	return append(all, nl.SetUp("port "+pc.name, pc.index))
}

// From linux/if_bridge.h.
const (
	vlanInfo        = 2      // IFLA_BRIDGE_VLAN_INFO
	vlanPVID        = 1 << 1 // BRIDGE_VLAN_INFO_PVID
	vlanUntagged    = 1 << 2 // BRIDGE_VLAN_INFO_UNTAGGED
	vlanRangeBegin  = 1 << 3 // BRIDGE_VLAN_INFO_RANGE_BEGIN
	vlanRangeEnd    = 1 << 4 // BRIDGE_VLAN_INFO_RANGE_END
	defaultTrunkVID = 1      // the VLAN of untagged frames where only a trunk is given
)

// vlanMessages gives the port its VLANs.
func (pc portConf) vlanMessages() []*nl.Message {
	if pc.vlan == 0 && len(pc.trunk) == 0 {
		return nil
	}
	var all []*nl.Message
	if pc.defaultPVID != 0 && pc.defaultPVID != pc.vlan {
		m := bridgeMessage("take VLAN off port "+pc.name, unix.RTM_DELLINK, pc.index)
		all = append(all, m.Begin(unix.IFLA_AF_SPEC).Attr(vlanInfo, vlanEntry(0, pc.defaultPVID)).End())
	}
	m := bridgeMessage("give port "+pc.name+" its VLANs", unix.RTM_SETLINK, pc.index).Begin(unix.IFLA_AF_SPEC)
	native := pc.vlan
	if native == 0 {
		native = defaultTrunkVID
	}
	for _, r := range pc.trunk {
		if r.First == r.Last {
			m.Attr(vlanInfo, vlanEntry(0, r.First))
			continue
		}
		m.Attr(vlanInfo, vlanEntry(vlanRangeBegin, r.First)).Attr(vlanInfo, vlanEntry(vlanRangeEnd, r.Last))
	}
	m.Attr(vlanInfo, vlanEntry(vlanPVID|vlanUntagged, native)).End()
	return append(all, m)
}

// bridgeVLAN makes the bridge itself a member of a VLAN, tagged: what is for the
// host in it arrives at the bridge's VLAN device.
func bridgeVLAN(name string, index int, id uint16) *nl.Message {
	const flags, self = 0, 2 // IFLA_BRIDGE_FLAGS, BRIDGE_FLAGS_SELF
	m := bridgeMessage(fmt.Sprintf("make bridge %s a member of VLAN %d", name, id), unix.RTM_SETLINK, index)
	return m.Begin(unix.IFLA_AF_SPEC).Uint16(flags, self).Attr(vlanInfo, vlanEntry(0, id)).End()
}

func vlanEntry(flags, id uint16) []byte {
	return binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, flags), id)
}

// bridgeMessage starts a message of the bridge family about a port.
func bridgeMessage(what string, typ uint16, index int) *nl.Message {
	h := nl.Ifinfomsg(index)
	h[0] = unix.AF_BRIDGE
	return nl.NewMessage(what, typ, 0, h...)
}
