package link

import (
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/sha2"
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
	sum := sha2.Sum256(a.AsSlice())
	return append(net.HardwareAddr{0x0e}, sum[:5]...)
}

func sameMAC(want string, l *nl.Link) bool { return strings.EqualFold(want, l.MAC.String()) }

// MACKeys are the keys of a configuration by which a MAC address can be asked
// for. Plugins embed it in theirs.
type MACKeys struct {
	MAC  string `json:"mac"`
	Args struct {
		CNI struct {
			MAC string `json:"mac"`
		} `json:"cni"`
	} `json:"args"`
	RuntimeConfig struct {
		MAC string `json:"mac"`
	} `json:"runtimeConfig"`
}

// Requested returns the address asked for, or nil: the runtime's word counts
// more than CNI_ARGS, which count more than the configuration's.
func (k *MACKeys) Requested(c *plugin.Call) (net.HardwareAddr, error) {
	for _, s := range []string{k.RuntimeConfig.MAC, k.Args.CNI.MAC, c.Arg("MAC")} {
		if s != "" {
			return ParseMAC(s)
		}
	}
	return ParseMAC(k.MAC)
}

// RandomMAC returns a locally administered address.
func RandomMAC() net.HardwareAddr {
	m := make(net.HardwareAddr, 6)
	_, _ = unix.Getrandom(m, 0) // six bytes never fail; crypto/rand would be paid for at each start
	m[0] = m[0]&^1 | 2
	return m
}

// DerivedMAC is the address of an attachment's link for which nobody asked for
// one: the same each time, and known before the link is made. The machine is part
// of it, since two of one LAN may have networks and containers of the same names.
func DerivedMAC(k journal.Key) net.HardwareAddr {
	b, _ := os.ReadFile("/etc/machine-id") // which not every host has
	return derivedMAC(k, idIn(b))
}

func derivedMAC(k journal.Key, machine string) net.HardwareAddr {
	parts := []string{"mac", k.Network, k.ContainerID, k.IfName}
	if machine != "" {
		parts = append(parts, machine)
	}
	sum := sha2.Sum256([]byte(strings.Join(parts, "\x00")))
	m := net.HardwareAddr(sum[:6])
	m[0] = m[0]&^1 | 2 // unicast, locally administered
	return m
}

// idIn returns what machine-id(5) says, or "" where that is not an ID, or not yet.
func idIn(text []byte) string {
	id := strings.TrimSpace(string(text))
	if _, err := hex.DecodeString(id); err != nil {
		return ""
	}
	return id
}
