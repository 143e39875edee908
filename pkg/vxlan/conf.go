// Package vxlan is the uplink of an overlay network: a VXLAN interface of the host
// that is a port of the network's bridge.
package vxlan

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Conf is the key vxlan of the bridge plugin.
type Conf struct {
	ID      int    `json:"id"`
	Dev     string `json:"dev"`
	Local   string `json:"local"`
	Port    int    `json:"port"`
	Control string `json:"control"`
}

// Control planes: what tells an uplink behind which host a container is.
const (
	Etcd = "etcd" // netcleat cluster daemon does, by the blocks of cluster-local
	EVPN = "evpn" // a BGP daemon does
)

// DefaultPort is the one that IANA has assigned to VXLAN.
const DefaultPort = 4789

const maxID = 1<<24 - 1

// Check returns why the key cannot work, with the code of an invalid configuration.
// What is absent gets its default.
func (c *Conf) Check() error {
	if c.Port == 0 {
		c.Port = DefaultPort
	}
	if c.Control == "" {
		c.Control = Etcd
	}
	switch {
	case c.ID < 1 || c.ID > maxID:
		return cnierr.Config("vxlan: id %d: not from 1 to %d", c.ID, maxID)
	case c.Port < 1 || c.Port > 65535:
		return cnierr.Config("vxlan: port %d: not from 1 to 65535", c.Port)
	case (c.Dev == "") == (c.Local == ""):
		return cnierr.Config("vxlan: want either dev, the interface to the other hosts, or local, this host's address to them")
	case c.Dev != "" && !nl.IsName(c.Dev):
		return cnierr.Config("vxlan: dev %q: not a name that an interface can have", c.Dev)
	case c.Control != Etcd && c.Control != EVPN:
		return cnierr.Config("vxlan: control %q: want %q or %q", c.Control, Etcd, EVPN)
	}
	if c.Local == "" {
		return nil
	}
	a, err := netip.ParseAddr(c.Local)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return cnierr.Config("vxlan: local %q: not an address of this host that others reach", c.Local)
	}
	return nil
}

// Of returns the key vxlan of a configuration of bridge; nil where it has none, or one that
// cannot work.
func Of(bridge json.RawMessage) *Conf {
	var o struct {
		VXLAN *Conf `json:"vxlan"`
	}
	if json.Unmarshal(bridge, &o) != nil || o.VXLAN == nil || o.VXLAN.Check() != nil {
		return nil
	}
	return o.VXLAN
}

// Name returns the uplink's name.
func (c *Conf) Name() string { return fmt.Sprintf("vxlan%d", c.ID) }
