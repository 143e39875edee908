package ptp

import (
	"cmp"
	"net"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// config is the plugin's network configuration, valid once parse returns it.
type config struct {
	link.MACKeys
	IPMasq        bool    `json:"ipMasq"`
	IPMasqBackend *string `json:"ipMasqBackend"`
	MTU           int     `json:"mtu"`
	EnableDAD     bool    `json:"enabledad"`
	// AcceptRA leaves router advertisements and IPv6 in the sandbox to the
	// kernel; ours, not the reference's.
	AcceptRA bool `json:"acceptRA"`

	mac net.HardwareAddr // of the sandbox's end; nil where nobody asked for one
}

func parse(c *plugin.Call) (conf config, err error) {
	if err := c.Decode(&conf); err != nil {
		return conf, err
	}
	switch {
	case c.Conf.IPAM.Type == "":
		return conf, cnierr.Explain(cnierr.Config("no plugin name provided"), "ipam: ptp routes, and needs addresses for that")
	case conf.MTU < 0:
		return conf, cnierr.Config("mtu %d: negative", conf.MTU)
	}
	if err := cmp.Or(masq.CheckBackend(conf.IPMasqBackend), ipam.RefuseDHCP(c)); err != nil {
		return conf, err
	}
	conf.mac, err = conf.Requested(c)
	return conf, err
}
