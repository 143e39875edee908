package bridge

import (
	"net"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// config is the plugin's network configuration, valid once parse returns it.
type config struct {
	Bridge              string      `json:"bridge"`
	IsGateway           bool        `json:"isGateway"`
	IsDefaultGateway    bool        `json:"isDefaultGateway"`
	ForceAddress        bool        `json:"forceAddress"`
	IPMasq              bool        `json:"ipMasq"`
	IPMasqBackend       *string     `json:"ipMasqBackend"`
	MTU                 int         `json:"mtu"`
	HairpinMode         bool        `json:"hairpinMode"`
	PromiscMode         bool        `json:"promiscMode"`
	VLAN                int         `json:"vlan"`
	VLANTrunk           []vlanTrunk `json:"vlanTrunk"`
	PreserveDefaultVLAN bool        `json:"preserveDefaultVlan"`
	MACSpoofCheck       bool        `json:"macspoofchk"`
	EnableDAD           bool        `json:"enabledad"`
	PortIsolation       bool        `json:"portIsolation"`
	// DisableContainerInterface leaves the sandbox's end down: for a VM's use.
	DisableContainerInterface bool `json:"disableContainerInterface"`
	// AcceptRA leaves router advertisements and IPv6 in the sandbox to the
	// kernel; ours, not the reference's.
	AcceptRA bool `json:"acceptRA"`
	// VXLAN joins the bridge to those of other hosts; ours, too.
	VXLAN *vxlan.Conf `json:"vxlan"`

	Args struct {
		CNI struct {
			MAC string `json:"mac"`
		} `json:"cni"`
	} `json:"args"`
	RuntimeConfig struct {
		MAC string `json:"mac"`
	} `json:"runtimeConfig"`

	layer3 bool             // an IPAM plugin is configured
	mac    net.HardwareAddr // of the sandbox's end; nil where nobody asked for one
	vlans  []vlanRange      // VLANTrunk, checked
}

// vlanTrunk is one entry of vlanTrunk: a range, an ID, or both.
type vlanTrunk struct {
	MinID *int `json:"minID"`
	MaxID *int `json:"maxID"`
	ID    *int `json:"id"`
}

// vlanRange is the VLAN IDs from First to Last.
type vlanRange struct{ First, Last uint16 }

const (
	maxVLAN = 4094
	minMTU  = 68 // of a veth, as maxMTU
	maxMTU  = 65535
)

func parse(c *plugin.Call) (config, error) {
	conf := config{Bridge: "cni0", layer3: c.Conf.IPAM.Type != ""}
	if err := c.Decode(&conf); err != nil {
		return conf, err
	}
	conf.IsGateway = conf.IsGateway || conf.IsDefaultGateway
	if err := conf.validate(); err != nil {
		return conf, err
	}
	if err := conf.checkControl(c); err != nil {
		return conf, err
	}
	if err := c.CheckArgs("MAC"); err != nil && c.Verb == plugin.Add {
		return conf, err
	}
	var err error
	conf.mac, err = link.ParseMAC(firstOf(conf.RuntimeConfig.MAC, conf.Args.CNI.MAC, c.Arg("MAC")))
	if err == nil && conf.mac != nil && conf.isProgrammed() && c.Verb == plugin.Add {
		return conf, cnierr.Config("mac %s: with vxlan, MAC addresses cannot be chosen: other hosts derive them from the IP addresses (control evpn allows it)", conf.mac)
	}
	return conf, err
}

func firstOf(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

func (c *config) validate() (err error) {
	switch {
	case !nl.IsName(c.Bridge):
		return cnierr.Config("bridge %q: not a name that an interface can have", c.Bridge)
	case c.MTU < 0:
		return cnierr.Config("mtu %d: negative", c.MTU)
	case c.MTU != 0 && c.MTU < minMTU || c.MTU > maxMTU:
		return cnierr.Config("mtu %d: not from %d to %d", c.MTU, minMTU, maxMTU)
	case c.VLAN < 0 || c.VLAN > maxVLAN:
		return cnierr.Config("invalid VLAN ID %d (must be between 0 and %d)", c.VLAN, maxVLAN)
	case c.layer3 && c.DisableContainerInterface:
		return cnierr.Config("cannot use IPAM when DisableContainerInterface flag is set")
	case c.HairpinMode && c.PromiscMode:
		return cnierr.Config("cannot set hairpin mode and promiscuous mode at the same time")
	case c.VLAN != 0 && c.IsGateway && len(c.gatewayLink()) > 15:
		return cnierr.Config("bridge %q: with vlan and isGateway the gateway's interface would be %q, longer than 15 characters", c.Bridge, c.gatewayLink())
	}
	if err := c.checkVXLAN(); err != nil {
		return err
	}
	if err := masq.CheckBackend(c.IPMasqBackend); err != nil {
		return err
	}
	c.vlans, err = trunk(c.VLANTrunk)
	return err
}

// trunk turns vlanTrunk into ranges.
func trunk(entries []vlanTrunk) ([]vlanRange, error) {
	var all []vlanRange
	valid := func(id *int) bool { return id == nil || *id > 0 && *id <= maxVLAN }
	for _, e := range entries {
		switch {
		case !valid(e.MinID):
			return nil, badTrunk("incorrect trunk minID parameter", *e.MinID)
		case !valid(e.MaxID):
			return nil, badTrunk("incorrect trunk maxID parameter", *e.MaxID)
		case !valid(e.ID):
			return nil, badTrunk("incorrect trunk id parameter", *e.ID)
		case e.MinID != nil && e.MaxID == nil:
			return nil, cnierr.Config("minID and maxID should be configured simultaneously, maxID is missing")
		case e.MaxID != nil && e.MinID == nil:
			return nil, cnierr.Config("minID and maxID should be configured simultaneously, minID is missing")
		case e.MinID != nil && *e.MinID > *e.MaxID:
			return nil, badTrunk("minID is greater than maxID in trunk parameter", *e.MinID, *e.MaxID)
		}
		if e.MinID != nil {
			all = append(all, vlanRange{uint16(*e.MinID), uint16(*e.MaxID)})
		}
		if e.ID != nil {
			all = append(all, vlanRange{uint16(*e.ID), uint16(*e.ID)})
		}
	}
	return all, nil
}

// filtersVLANs reports whether the bridge has to keep VLANs apart.
func (c *config) filtersVLANs() bool { return c.VLAN != 0 || len(c.vlans) > 0 }

// badTrunk refuses an entry of vlanTrunk with a text of the reference; the
// VLANs go into the details.
func badTrunk(text string, ids ...int) error {
	return cnierr.Explain(cnierr.Config("%s", text), "vlanTrunk %v", ids)
}
