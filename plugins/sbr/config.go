package sbr

import (
	"math"
	"net/netip"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/plugin"
)

type config struct {
	// Table is the user's own, where set: only the rules are added.
	Table uint32
	// Gateway4 and Gateway6 go before those of prevResult.
	Gateway4, Gateway6 netip.Addr
	// SourceHints leaves routes to the link's subnets in the main table, each
	// with the address to use as its source.
	SourceHints bool
}

func parse(c *plugin.Call) (config, error) {
	var doc struct {
		Table       *int64   `json:"table"`
		Gateways    []string `json:"gateways"`
		SourceHints bool     `json:"addSourceHints"`
	}
	if err := c.Decode(&doc); err != nil {
		return config{}, err
	}
	conf := config{SourceHints: doc.SourceHints}
	if t := doc.Table; t != nil {
		if *t < 1 || *t > math.MaxUint32 {
			return conf, cnierr.Config("table %d: not the number of a routing table", *t)
		}
		conf.Table = uint32(*t)
	}
	return conf, conf.setGateways(doc.Gateways)
}

func (c *config) setGateways(list []string) error {
	if len(list) > 2 {
		return cnierr.Config("gateways list cannot contain more than 2 entries (one IPv4, one IPv6)")
	}
	for _, s := range list {
		gw, err := netip.ParseAddr(s)
		if err != nil || gw.Zone() != "" || gw.Is4In6() || gw.IsUnspecified() || gw.IsMulticast() {
			return cnierr.Config("invalid static gateway IP address: %s", s)
		}
		set, family := &c.Gateway6, "IPv6"
		if gw.Is4() {
			set, family = &c.Gateway4, "IPv4"
		}
		if set.IsValid() {
			return cnierr.Config("gateways list contains multiple %s addresses: %s and %s", family, set, gw)
		}
		*set = gw
	}
	return nil
}

// gateway returns the configured gateway of the address's family.
func (c config) gateway(of netip.Addr) netip.Addr {
	if of.Is4() {
		return c.Gateway4
	}
	return c.Gateway6
}

// address is one of the interface's.
type address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr // invalid: none
}

// addresses returns those that prevResult has for the interface. One that names
// no interface is the attachment's.
func addresses(c *plugin.Call) ([]address, error) {
	res, err := c.PrevResult()
	if err != nil {
		return nil, err
	}
	if res == nil {
		return nil, cnierr.Config("This plugin must be called as chained plugin")
	}
	if len(res.IPs) == 0 {
		return nil, cnierr.Config("No IP addresses supplied on interface: %s", c.IfName)
	}
	var all []address
	for _, ip := range res.IPs {
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(res.Interfaces) {
			if f := res.Interfaces[*i]; f.Name != c.IfName || f.Sandbox == "" {
				continue
			}
		}
		p, err := link.PrefixOf(ip.Address)
		if err != nil {
			return nil, cnierr.Config("prevResult: %w", err)
		}
		all = append(all, address{p, link.GatewayOf(ip.Gateway)})
	}
	return all, nil
}
