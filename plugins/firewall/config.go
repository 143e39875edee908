package firewall

import (
	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// config is what the configuration asks for.
type config struct {
	Backend    backend `json:"backend"`
	AdminChain string  `json:"iptablesAdminChainName"`
	Zone       string  `json:"firewalldZone"`
	Policy     policy  `json:"ingressPolicy"`
}

// backend says where the network's packets are accepted; "" is where the host
// would drop them.
type backend string

const (
	onNFTables  backend = "nftables"
	onIPTables  backend = "iptables"
	onFirewalld backend = "firewalld"
)

// policy says who may speak to a container.
type policy string

const (
	open       policy = "open"
	sameBridge policy = "same-bridge"
	isolated   policy = "isolated"
)

func parse(c *plugin.Call) (config, error) {
	conf := config{}
	err := c.Decode(&conf)
	if conf.AdminChain == "" {
		conf.AdminChain = "CNI-ADMIN"
	}
	if conf.Zone == "" {
		conf.Zone = "trusted"
	}
	if conf.Policy == "" {
		conf.Policy = open
	}
	if err != nil {
		return conf, err
	}
	switch conf.Backend {
	case "", onNFTables, onIPTables, onFirewalld:
	default:
		return conf, cnierr.Config("firewall backend %q: want iptables, firewalld or nftables", string(conf.Backend))
	}
	switch conf.Policy {
	case open, sameBridge, isolated:
	default:
		return conf, cnierr.Config("unknown ingress policy: %q", string(conf.Policy))
	}
	return conf, iptables.CheckChain("iptablesAdminChainName", conf.AdminChain)
}
