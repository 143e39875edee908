// Package ipvlan is the CNI plugin that gives a sandbox an interface on one of
// the host's links which shares that link's MAC address.
package ipvlan

import (
	"context"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/sublink"
)

// Plugin is the plugin for the table.
var Plugin = plugin.Spec[config]{
	Name:      kind,
	Parse:     parse,
	HasRecord: func(config) bool { return true },
	AddIn:     attach,
	DelIn:     detach,
	Check:     check,
	Status: func(ctx context.Context, c *plugin.Call, conf config) error {
		return sublink.Status(ctx, c, conf.spec(c))
	},
	GC: func(ctx context.Context, c *plugin.Call, _ config) error { return sublink.Collect(ctx, c) },
}

const kind = "ipvlan"

// attach answers ADD.
func attach(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) (*current.Result, error) {
	prev, err := c.PrevResult()
	if err != nil {
		return nil, err
	}
	s := conf.spec(c)
	s.Prev = prev
	if s.Master == "" && prev != nil {
		if len(prev.Interfaces) != 1 || prev.Interfaces[0].Name == "" {
			return nil, cnierr.Config("chained master failure. PrevResult lacks a single named interface: say which to use (master)")
		}
		s.Master = prev.Interfaces[0].Name
	}
	return sublink.Attach(ctx, c, p, s)
}

func detach(ctx context.Context, c *plugin.Call, p *nl.Pair, _ config) error {
	return sublink.Detach(ctx, c, p, kind)
}

// spec is the sublink that the configuration asks for.
func (c *config) spec(call *plugin.Call) sublink.Spec {
	return sublink.Spec{
		Conf: c.Conf, Kind: kind, Alone: c.traits.Mode != l2, Shared: true,
		Info: func(m *nl.Message) {
			m.Uint16(unix.IFLA_IPVLAN_MODE, uint16(c.traits.Mode)).Uint16(unix.IFLA_IPVLAN_FLAGS, uint16(c.traits.Flag))
		},
		Refuse: func(master *nl.Link) error { return c.agrees(call, master) },
	}
}

// check answers CHECK.
func check(ctx context.Context, c *plugin.Call, conf config) error {
	l, err := sublink.Check(ctx, c, conf.spec(c))
	if err != nil {
		return err
	}
	if have := traitsOf(l); have != conf.traits {
		return cnierr.Check("interface %s has %s, not %s", l.Name, have, conf.traits)
	}
	return nil
}

// traitsOf reads mode and flag from what the kernel says of the link.
func traitsOf(l *nl.Link) (t traits) {
	nl.Attrs(l.Info, func(typ uint16, d []byte) {
		switch typ {
		case unix.IFLA_IPVLAN_MODE:
			t.Mode = mode(nl.Uint16(d))
		case unix.IFLA_IPVLAN_FLAGS:
			t.Flag = flag(nl.Uint16(d))
		}
	})
	return t
}
