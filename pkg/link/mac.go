package link

import (
	"net"
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

func sameMAC(want string, l *nl.Link) bool { return strings.EqualFold(want, l.MAC.String()) }
