// Package overlay programs the uplinks of overlay networks: which addresses are behind
// which host.
//
// A container's MAC address follows from its address, so all entries of a block are
// known when it is known which host has the block. The entries are the kernel's: they
// stay when the daemon ends.
package overlay

import (
	"bytes"
	"net"
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/pkg/ipmath"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// Network is what a network's uplink has to forward.
type Network struct {
	VXLAN  *vxlan.Conf
	Bridge string
	// Subnets are the network's: neighbours outside of them are left alone.
	Subnets []netip.Prefix
	// Gateways are no container's.
	Gateways []netip.Addr
	Blocks   []Block
	// Keep leaves entries of other blocks as they are.
	Keep bool
}

// Block is addresses that another host has.
type Block struct {
	// Prefixes are as many addresses of each range. An address of a later one belongs to
	// the address of the first at the same place.
	Prefixes []netip.Prefix
	Host     netip.Addr // to which its frames go
}

// Equal reports whether two networks need the same entries.
func (n *Network) Equal(o *Network) bool {
	return n.Keep == o.Keep && n.Bridge == o.Bridge && *n.VXLAN == *o.VXLAN && slices.Equal(n.Subnets, o.Subnets) && slices.Equal(n.Gateways, o.Gateways) &&
		slices.EqualFunc(n.Blocks, o.Blocks, func(a, b Block) bool { return a.Host == b.Host && slices.Equal(a.Prefixes, b.Prefixes) })
}

// table is entries of an uplink and its bridge.
type table struct {
	uplink map[mac]netip.Addr // the VXLAN interface's: the host behind which a MAC address is
	bridge map[mac]bool       // the bridge's: the MAC address is behind the uplink
	neighs map[netip.Addr]mac // of the bridge
}

// mac is a hardware address as a key.
type mac [6]byte

func macOf(h net.HardwareAddr) (m mac) {
	copy(m[:], h)
	return m
}

func (m mac) hardware() net.HardwareAddr { return bytes.Clone(m[:]) }

func newTable() table {
	return table{map[mac]netip.Addr{}, map[mac]bool{}, map[netip.Addr]mac{}}
}

// wanted returns the entries that a network needs.
func (n *Network) wanted() table {
	t := newTable()
	for _, b := range n.Blocks {
		t.add(b, n.Gateways)
	}
	return t
}

func (t table) add(b Block, gateways []netip.Addr) {
	at := make([]netip.Addr, len(b.Prefixes))
	for i, p := range b.Prefixes {
		at[i] = p.Addr()
	}
	for last := ipmath.Last(b.Prefixes[0]); ; {
		m := macOf(link.MACOf(at[0]))
		if !slices.Contains(gateways, at[0]) {
			t.uplink[m], t.bridge[m] = b.Host, true
			for _, a := range at {
				if !slices.Contains(gateways, a) {
					t.neighs[a] = m
				}
			}
		}
		if at[0] == last {
			return
		}
		for i := range at {
			at[i] = at[i].Next()
		}
	}
}
