package bridge

import (
	"context"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// checkVXLAN refuses what a network of several hosts cannot have.
func (c *config) checkVXLAN() error {
	switch {
	case c.VXLAN == nil:
		return nil
	case c.VLAN != 0 || len(c.VLANTrunk) > 0:
		return cnierr.Config("vxlan: excludes vlan and vlanTrunk: give each network an id of its own")
	case c.PortIsolation:
		return cnierr.Config("vxlan: excludes portIsolation, which cannot keep containers of different hosts apart")
	}
	return c.VXLAN.Check()
}

// checkControl refuses IPAM that the cluster daemon does not know the blocks of.
func (c *config) checkControl(call *plugin.Call) error {
	if !c.isProgrammed() || call.Removing() || call.Conf.IPAM.Type == "cluster-local" {
		return nil
	}
	return cnierr.Config("vxlan: with control etcd the ipam type must be cluster-local, by whose blocks hosts find each other's containers; control evpn takes any, if it assigns each address once among all hosts")
}

// isProgrammed reports whether the cluster daemon programs the uplink.
func (c *config) isProgrammed() bool { return c.VXLAN != nil && c.VXLAN.Control == vxlan.Etcd }

// bridgeMTU is the MTU of a bridge that is to be made; 0 is the kernel's default.
func (c *config) bridgeMTU(p *nl.Pair) (int, error) {
	if c.VXLAN == nil {
		return c.MTU, nil
	}
	return c.VXLAN.MTU(p.Host, c.MTU)
}

// ensureUplink joins the bridge to those of other hosts. What its containers send is
// to fit through the uplink.
func (a *attachment) ensureUplink(ctx context.Context) error {
	u, err := a.conf.VXLAN.Ensure(a.net.Host, a.bridge.Index, a.conf.MTU)
	if err != nil {
		return err
	}
	a.uplink = u
	if !u.Up() {
		if err := a.conf.VXLAN.Guard(ctx, a.Gate, a.conf.Bridge); err != nil {
			return err
		}
		// Before its neighbours are programmed: a bridge that gets an address, be it the one
		// that it has, forgets them.
		if err := a.setMAC(); err != nil {
			return err
		}
	}
	if a.conf.MTU > u.MTU {
		return cnierr.Config("mtu %d: larger than the %d of %s, over which packets go to other hosts", a.conf.MTU, u.MTU, u.Name)
	}
	a.bridge.MTU = min(a.bridge.MTU, u.MTU)
	return nil
}

// addNeighbours tells the host's BGP daemon which address the container has: it takes
// that from the bridge's neighbours, and the bridge answers ARP and ND for them.
func (a *attachment) addNeighbours(steps *undo.Stack) error {
	if !a.conf.announcesNeighbours() || len(a.res.IPs) == 0 {
		return nil
	}
	var set, del []*nl.Message
	for _, ip := range a.res.IPs {
		n := nl.Neigh{Index: a.bridge.Index, IP: link.AddrOf(ip.Address.IP), MAC: a.sandbox.MAC, State: unix.NUD_PERMANENT}
		m := nl.SetNeigh(n)
		m.Ignore = []unix.Errno{unix.ENOENT} // IPv6 is disabled on the bridge
		set, del = append(set, m), append(del, nl.DelNeigh(n))
	}
	steps.Push("delete neighbours", func() error { return a.net.Host.Do(del...) })
	return a.net.Host.Do(set...)
}

// announcesNeighbours reports whether a BGP daemon reads the bridge's neighbours.
func (c *config) announcesNeighbours() bool { return c.VXLAN != nil && c.VXLAN.Control == vxlan.EVPN }

// delNeighbours deletes the entries of an attachment's addresses.
func delNeighbours(p *nl.Pair, c *config, ips []netip.Prefix) error {
	if !c.announcesNeighbours() || len(ips) == 0 {
		return nil
	}
	b, err := nl.BriefByName(c.Bridge)
	if nl.NotFound(err) {
		return nil // and its neighbours with it
	}
	if err != nil {
		return err
	}
	var del []*nl.Message
	for _, ip := range ips {
		del = append(del, nl.DelNeigh(nl.Neigh{Index: b.Index, IP: ip.Addr()}))
	}
	return p.Host.Do(del...)
}

// checkUplink compares the uplink with what ADD made.
func checkUplink(p *nl.Pair, conf *config, b nl.Brief) error {
	if conf.VXLAN == nil {
		return nil
	}
	name := conf.VXLAN.Name()
	l, err := p.Host.LinkByName(name)
	if nl.NotFound(err) {
		return cnierr.Check("uplink %s is missing: containers of other hosts are not reached", name)
	}
	if err != nil {
		return err
	}
	u, ok := vxlan.Read(l)
	switch {
	case !ok || u.ID != conf.VXLAN.ID || u.Port != conf.VXLAN.Port:
		return cnierr.Check("uplink %s: is no VXLAN interface with id %d and port %d", name, conf.VXLAN.ID, conf.VXLAN.Port)
	case u.Master != b.Index:
		return cnierr.Check("uplink %s is no port of bridge %s", name, conf.Bridge)
	case !u.Up():
		return cnierr.Check("uplink %s is down", name)
	case !u.Suppresses():
		return cnierr.Check("uplink %s: neigh_suppress is off", name)
	}
	return nil
}
