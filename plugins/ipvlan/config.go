package ipvlan

import (
	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/sublink"
)

// config is the plugin's network configuration, valid once parse returns it.
type config struct {
	sublink.Conf
	Mode string `json:"mode"`
	// Flag is what Docker calls ipvlan_flag; ours, not the reference's.
	Flag string `json:"flag"`

	traits traits
}

// traits are what the kernel keeps once for all sublinks of a master.
type traits struct {
	Mode mode
	Flag flag
}

func (t traits) String() string { return "mode " + t.Mode.String() + " and flag " + t.Flag.String() }

// mode says where packets are routed.
type mode uint16

// From linux/if_link.h.
const (
	l2  mode = iota // in the sandbox, which is on the master's LAN
	l3              // on the host, past its netfilter; no broadcast
	l3s             // on the host, through its netfilter
)

func (m mode) String() string { return [...]string{"l2", "l3", "l3s"}[min(m, l3s)] }

// flag says whether sublinks of one master reach each other.
type flag uint16

// From linux/if_link.h.
const (
	bridge  flag = iota // directly
	private             // not at all
	vepa                // through the switch, which must reflect
)

func (f flag) String() string { return [...]string{"bridge", "private", "vepa"}[min(f, vepa)] }

// traitsNamed returns mode and flag by their names; "" is the default.
func traitsNamed(modeName, flagName string) (t traits, err error) {
	switch modeName {
	case "", "l2":
		t.Mode = l2
	case "l3":
		t.Mode = l3
	case "l3s":
		t.Mode = l3s
	default:
		return t, cnierr.Explain(cnierr.Config("unknown ipvlan mode: %q", modeName), "want l2, l3 or l3s")
	}
	switch flagName {
	case "", "bridge":
		t.Flag = bridge
	case "private":
		t.Flag = private
	case "vepa":
		t.Flag = vepa
	default:
		return t, cnierr.Config("unknown ipvlan flag: %q (want bridge, private or vepa)", flagName)
	}
	return t, nil
}

func parse(c *plugin.Call) (conf config, err error) {
	if err := c.Decode(&conf); err != nil {
		return conf, err
	}
	if err := conf.Validate(); err != nil {
		return conf, err
	}
	conf.traits, err = traitsNamed(conf.Mode, conf.Flag)
	return conf, err
}
