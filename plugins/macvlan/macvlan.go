// Package macvlan is the CNI plugin that gives a sandbox an interface with a MAC
// address of its own on one of the host's links.
package macvlan

import (
	"context"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
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

const kind = "macvlan"

func attach(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) (*current.Result, error) {
	return sublink.Attach(ctx, c, p, conf.spec(c))
}

func detach(ctx context.Context, c *plugin.Call, p *nl.Pair, _ config) error {
	return sublink.Detach(ctx, c, p, kind)
}

// spec is the sublink that the configuration asks for.
func (c *config) spec(call *plugin.Call) sublink.Spec {
	mac := c.mac
	if mac == nil && c.mode != passthru {
		mac = link.DerivedMAC(call.Key(""))
	}
	return sublink.Spec{Conf: c.Conf, Kind: kind, MAC: mac, Shared: true, Info: func(m *nl.Message) {
		m.Uint32(unix.IFLA_MACVLAN_MODE, uint32(c.mode))
		if c.BCQueueLen != 0 {
			m.Uint32(unix.IFLA_MACVLAN_BC_QUEUE_LEN, c.BCQueueLen)
		}
	}}
}

// check answers CHECK.
func check(ctx context.Context, c *plugin.Call, conf config) error {
	l, err := sublink.Check(ctx, c, conf.spec(c))
	if err != nil {
		return err
	}
	nl.Attrs(l.Info, func(typ uint16, d []byte) {
		if typ == unix.IFLA_MACVLAN_MODE && mode(nl.Uint32(d)) != conf.mode {
			err = cnierr.Check("interface %s is not in mode %s", l.Name, conf.mode)
		}
	})
	return err
}
