package tap

import (
	"encoding/json"
	"net"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// config is the plugin's network configuration, valid once parse returns it.
type config struct {
	MultiQueue     bool    `json:"multiQueue"`
	MTU            int     `json:"mtu"` // 0 is the kernel's default
	MAC            string  `json:"mac"`
	Owner          *uint32 `json:"owner"`
	Group          *uint32 `json:"group"`
	SELinuxContext string  `json:"selinuxContext"`
	Bridge         string  `json:"bridge"` // in the sandbox
	// AcceptRA leaves IPv6 to the kernel where IPAM gave no address of it; ours,
	// not the reference's.
	AcceptRA      bool `json:"acceptRA"`
	RuntimeConfig struct {
		MAC string `json:"mac"`
	} `json:"runtimeConfig"`

	within *device          // what this plugin tells itself (createLabelled); not of the configuration
	layer3 bool             // an IPAM plugin is configured
	mac    net.HardwareAddr // nil where nobody asked for one
}

func parse(c *plugin.Call) (config, error) {
	conf := config{layer3: c.Conf.IPAM.Type != ""}
	if c.Within != "" && c.Verb == plugin.Add {
		conf.within = &device{}
		return conf, cnierr.Decode(json.Unmarshal([]byte(c.Within), conf.within))
	}
	if err := c.Decode(&conf); err != nil {
		return conf, err
	}
	if err := conf.validate(); err != nil {
		return conf, err
	}
	if err := ipam.RefuseDHCP(c); err != nil {
		return conf, err
	}
	if err := c.CheckArgs("MAC"); err != nil && c.Verb == plugin.Add {
		return conf, err
	}
	for _, s := range []string{conf.RuntimeConfig.MAC, c.Arg("MAC"), conf.MAC} {
		if s != "" {
			var err error
			conf.mac, err = link.ParseMAC(s)
			return conf, err
		}
	}
	return conf, nil
}

func (c *config) validate() error {
	switch {
	case c.MTU < 0:
		return cnierr.Config("mtu %d: negative", c.MTU)
	case c.Bridge != "" && !nl.IsName(c.Bridge):
		return cnierr.Config("bridge %q: not a name that an interface can have", c.Bridge)
	case strings.ContainsAny(c.SELinuxContext, "\x00\n"):
		return cnierr.Config("selinuxContext %q: not a label", c.SELinuxContext)
	}
	return nil
}
