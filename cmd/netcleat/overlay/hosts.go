package overlay

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// Behind returns the hosts that a network's uplink forwards to, each with how many MAC
// addresses are behind it. It is empty where the host has no such uplink.
func Behind(conf *vxlan.Conf) (hosts map[netip.Addr]int, err error) {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	l, err := c.LinkByName(conf.Name())
	if nl.NotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := c.Neighs(unix.AF_BRIDGE)
	if err != nil {
		return nil, err
	}
	hosts = map[netip.Addr]int{}
	for _, e := range all {
		if flood := macOf(e.MAC) == (mac{}); e.Index == l.Index && e.Bridge == 0 && e.IP.IsValid() && !flood {
			hosts[e.IP]++
		}
	}
	return hosts, nil
}
