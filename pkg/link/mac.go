package link

import (
	"crypto/sha256"
	"net"
	"net/netip"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
)

// ParseMAC reads the hardware address of an Ethernet interface; "" is none.
func ParseMAC(s string) (net.HardwareAddr, error) {
	if s == "" {
		return nil, nil
	}
	m, err := net.ParseMAC(s)
	switch {
	case err != nil:
		return nil, cnierr.Config("address %s: invalid MAC address", s)
	case len(m) != 6:
		return nil, cnierr.Config("address %s: invalid MAC address: not of 48 bits", s)
	case m[0]&1 != 0:
		return nil, cnierr.Config("address %s: invalid MAC address: a multicast one", s)
	}
	return m, nil
}

// MACOf returns the hardware address of an interface whose first address is a, so
// that an address has the same one whichever container holds it: no neighbour's
// memory of the container before is wrong. For IPv4 it holds the address, for
// IPv6 40 bits of its hash. Both are unicast and locally administered.
func MACOf(a netip.Addr) net.HardwareAddr {
	if a.Is4() {
		b := a.As4()
		return append(net.HardwareAddr{0x0a, 0x6e}, b[:]...)
	}
	sum := sha256.Sum256(a.AsSlice())
	return append(net.HardwareAddr{0x0e}, sum[:5]...)
}

func sameMAC(want string, l *nl.Link) bool { return strings.EqualFold(want, l.MAC.String()) }
