// Package vlan is the CNI plugin that gives a sandbox an interface in one VLAN
// of one of the host's links.
package vlan

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
		return sublink.Status(ctx, c, conf.spec())
	},
	GC: func(ctx context.Context, c *plugin.Call, _ config) error { return sublink.Collect(ctx, c) },
}

const kind = "vlan"

// config is the plugin's network configuration, valid once parse returns it.
type config struct {
	sublink.Conf
	VLANID int `json:"vlanId"` // 0 is the priority tag
}

const maxVLAN = 4094

func parse(c *plugin.Call) (conf config, err error) {
	if err := c.Decode(&conf); err != nil {
		return conf, err
	}
	switch {
	case conf.Master == "":
		return conf, cnierr.Config(`"master" field is required. It specifies the host interface name to create the VLAN for`)
	case conf.VLANID < 0 || conf.VLANID > maxVLAN:
		return conf, cnierr.Config("invalid VLAN ID %d (must be between 0 and %d)", conf.VLANID, maxVLAN)
	}
	return conf, conf.Validate()
}

func attach(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) (*current.Result, error) {
	return sublink.Attach(ctx, c, p, conf.spec())
}

func detach(ctx context.Context, c *plugin.Call, p *nl.Pair, _ config) error {
	return sublink.Detach(ctx, c, p, kind)
}

// spec is the sublink that the configuration asks for. The kernel takes a VLAN's
// frames off its master before a bridge or bond gets them, so they share it.
func (c *config) spec() sublink.Spec {
	return sublink.Spec{Conf: c.Conf, Kind: kind, Info: func(m *nl.Message) {
		m.Uint16(unix.IFLA_VLAN_ID, uint16(c.VLANID))
	}}
}

// check answers CHECK.
func check(ctx context.Context, c *plugin.Call, conf config) error {
	l, err := sublink.Check(ctx, c, conf.spec())
	if err != nil {
		return err
	}
	nl.Attrs(l.Info, func(typ uint16, d []byte) {
		if typ == unix.IFLA_VLAN_ID && int(nl.Uint16(d)) != conf.VLANID {
			err = cnierr.Check("interface %s is not in VLAN %d", l.Name, conf.VLANID)
		}
	})
	return err
}
