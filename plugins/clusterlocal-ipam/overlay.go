package clusterlocal

import (
	"context"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// overlaid is what cluster-local reads of the bridge plugin's configuration.
type overlaid struct {
	Bridge string      `json:"bridge"`
	VXLAN  *vxlan.Conf `json:"vxlan"`
}

// readOverlay takes over an overlay network that the daemon forwards for. Other hosts
// derive all that they know of a container from its place in a block: so it has one
// address of each family, at the same place.
func readOverlay(c *plugin.Call, conf *Config) error {
	o := overlaid{Bridge: "cni0"}
	if err := c.Decode(&o); err != nil || o.VXLAN == nil {
		return nil //nolint:nilerr // of which the bridge plugin speaks
	}
	if err := o.VXLAN.Check(); err != nil || o.VXLAN.Control != vxlan.Etcd {
		return err
	}
	sets := conf.Pool.Sets
	if len(sets) > 2 || len(sets) == 2 && sets[0].Ranges()[0].Subnet.Addr().Is4() == sets[1].Ranges()[0].Subnet.Addr().Is4() {
		return cnierr.Config("vxlan: want one range set of each family: other hosts reach one address of each")
	}
	conf.Pool.Overlay, conf.Pool.Bridge = o.VXLAN, o.Bridge
	conf.Pair = conf.Pool.pair
	conf.Pool.excludePairs()
	return nil
}

// excludePairs leaves out what belongs to addresses that are left out, so that each
// set has as many as the other.
func (p *Pool) excludePairs() {
	given := slices.Clone(p.Exclude)
	for i, set := range p.Sets {
		for _, r := range set.Ranges() {
			if r.Gateway.IsValid() {
				given = append(given, netip.PrefixFrom(r.Gateway, r.Gateway.BitLen()))
			}
		}
		for _, x := range given {
			at, ok := p.Layout.Find(i, x.Addr())
			bits := x.Addr().BitLen() - x.Bits()
			if x.Addr().Is4() != set.Ranges()[0].Subnet.Addr().Is4() || !ok || bits > int(p.Layout.Bits()) {
				continue
			}
			at.Bits = uint8(bits)
			for j := range p.Sets {
				if j != i {
					p.Exclude = append(p.Exclude, p.Layout.Prefix(j, at))
				}
			}
		}
	}
}

// pair returns the address of a set that is at the place of one of another set.
func (p *Pool) pair(from, to int, a netip.Addr) (netip.Addr, bool) {
	at, ok := p.Layout.Find(from, a)
	return p.Layout.Prefix(to, at).Addr(), ok
}

// prepare has the daemon program an uplink that is not up yet: the bridge plugin brings
// it up when the addresses are there.
func prepare(ctx context.Context, c *plugin.Call, conf Config) error {
	if conf.Pool.Overlay == nil {
		return nil
	}
	b, err := nl.BriefByName(conf.Pool.Overlay.Name())
	if nl.NotFound(err) || err == nil && b.Flags&unix.IFF_UP != 0 {
		return nil // the bridge plugin's affair
	}
	if err != nil {
		return err
	}
	if err := conf.Socket().Ask(ctx, Request{Config: c.Stdin, Uplink: true}); err != nil {
		return refusedUplink(conf, err)
	}
	return nil
}
