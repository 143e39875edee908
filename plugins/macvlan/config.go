package macvlan

import (
	"net"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/sublink"
)

// config is the plugin's network configuration, valid once parse returns it.
type config struct {
	sublink.Conf
	link.MACKeys
	Mode       string `json:"mode"`
	BCQueueLen uint32 `json:"bcqueuelen"`

	mode mode
	mac  net.HardwareAddr // nil where nobody asked for one
}

// mode says whom on the same master the sublink reaches, and how.
type mode uint32

// From linux/if_link.h.
const (
	private  mode = 1 << iota // reaches nobody on the same master
	vepa                      // through the switch, which must reflect
	bridge                    // directly
	passthru                  // is alone on the master, and has its MAC address
)

// modeNamed returns the mode called name; "" is the default.
func modeNamed(name string) (mode, error) {
	switch name {
	case "", "bridge":
		return bridge, nil
	case "private":
		return private, nil
	case "vepa":
		return vepa, nil
	case "passthru":
		return passthru, nil
	}
	return 0, cnierr.Explain(cnierr.Config("unknown macvlan mode: %q", name), "want bridge, private, vepa or passthru")
}

func (m mode) String() string {
	for _, name := range []string{"bridge", "private", "vepa", "passthru"} {
		if known, err := modeNamed(name); err == nil && known == m {
			return name
		}
	}
	return "unknown"
}

func parse(c *plugin.Call) (conf config, err error) {
	if err := c.Decode(&conf); err != nil {
		return conf, err
	}
	if err := conf.Validate(); err != nil {
		return conf, err
	}
	if conf.mode, err = modeNamed(conf.Mode); err != nil {
		return conf, err
	}
	if err := c.CheckArgs("MAC"); err != nil && c.Verb == plugin.Add {
		return conf, err
	}
	conf.mac, err = conf.Requested(c)
	return conf, err
}
