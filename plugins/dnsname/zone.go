package dnsname

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/dbus"
	"github.com/netcleat/netcleat/pkg/nft"
)

// Where firewalld filters, a zone decides: that of the network's addresses, which
// the firewall plugin has put into "trusted", or else that of the interface, or
// the default zone. There a rich rule lets queries through. Like all that plugins
// tell firewalld it is not permanent.
const (
	firewalldTable = "firewalld"
	busName        = "org.fedoraproject.FirewallD1"
	busPath        = "/org/fedoraproject/FirewallD1"
	trusted        = "trusted"
)

func zoneMethod(name string) dbus.Method {
	return dbus.Method{Dest: busName, Path: busPath, Interface: busName + ".zone", Name: name}
}

// usesFirewalld reports whether firewalld filters: it has a table.
func usesFirewalld(c *nft.Conn) bool {
	there, err := c.HasTable(nft.Table{Family: nft.Inet, Name: firewalldTable})
	return err == nil && there
}

// zone returns the zone that decides about the network's packets.
func (d *doorway) zone(bus *dbus.Conn, source netip.Prefix) (string, error) {
	if r, err := bus.Call(zoneMethod("getZoneOfSource"), source.String()); err == nil && r.Text() != "" {
		return r.Text(), nil
	}
	if r, err := bus.Call(zoneMethod("getZoneOfInterface"), d.Link); err == nil && r.Text() != "" {
		return r.Text(), nil
	}
	r, err := bus.Call(dbus.Method{Dest: busName, Path: busPath, Interface: busName, Name: "getDefaultZone"})
	return r.Text(), err
}

// rich are the rules that let a network's queries through.
func rich(source netip.Prefix, gw netip.Addr) (rules []string) {
	family := "ipv4"
	if gw.Is6() {
		family = "ipv6"
	}
	for _, proto := range []string{"udp", "tcp"} {
		rules = append(rules, fmt.Sprintf(`rule family="%s" source address="%s" destination address="%s" port port="%d" protocol="%s" accept`, family, source, gw, dnsPort, proto))
	}
	return rules
}

// zoneRules calls fn with each rule that firewalld's zones need.
func (d *doorway) zoneRules(gateways []netip.Addr, fn func(bus *dbus.Conn, zone, rule string) error) (err error) {
	if len(gateways) == 0 {
		return nil
	}
	bus, err := dbus.System()
	if err != nil {
		return fmt.Errorf("firewalld: %w", err)
	}
	defer func() { err = errors.Join(err, bus.Close()) }()
	for _, gw := range gateways {
		source := d.prefixOf(gw)
		zone, err := d.zone(bus, source)
		if err != nil {
			return fmt.Errorf("firewalld: %w", err)
		}
		if zone == trusted {
			continue
		}
		for _, rule := range rich(source, gw) {
			if err := fn(bus, zone, rule); err != nil {
				return fmt.Errorf("firewalld: zone %s: %s: %w", zone, rule, err)
			}
		}
	}
	return nil
}

// prefixOf is the network's prefix that the gateway is in.
func (d *doorway) prefixOf(gw netip.Addr) netip.Prefix {
	for _, p := range d.Addrs {
		if p.Contains(gw) {
			return p.Masked()
		}
	}
	return netip.PrefixFrom(gw, gw.BitLen())
}

func (d *doorway) openZone(c *nft.Conn) error {
	if !usesFirewalld(c) {
		return nil
	}
	return d.zoneRules(d.Gateways, func(bus *dbus.Conn, zone, rule string) error {
		if r, err := bus.Call(zoneMethod("queryRichRule"), zone, rule); err == nil && r.Bool() {
			return nil
		}
		what := "firewalld: add to zone " + zone + ": " + rule
		if err := d.gate.Pass(what); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		const forGood = int32(0)
		_, err := bus.Call(zoneMethod("addRichRule"), zone, rule, forGood)
		return err
	})
}

func (d *doorway) checkZone(c *nft.Conn) error {
	if !usesFirewalld(c) {
		return nil
	}
	return d.zoneRules(d.Gateways, func(bus *dbus.Conn, zone, rule string) error {
		r, err := bus.Call(zoneMethod("queryRichRule"), zone, rule)
		if err == nil && !r.Bool() {
			err = cnierr.Check("is missing (netcleat reconcile restores it)")
		}
		return err
	})
}

// closeZone removes the rules. Where firewalld does not run there are none.
func (d *doorway) closeZone(gateways []netip.Addr) error {
	c, err := nft.Dial(nil, nil)
	if err != nil {
		return err
	}
	uses := usesFirewalld(c)
	if err := c.Close(); err != nil || !uses {
		return err
	}
	return d.zoneRules(gateways, func(bus *dbus.Conn, zone, rule string) error {
		_, err := bus.Call(zoneMethod("removeRichRule"), zone, rule)
		if err != nil && strings.Contains(err.Error(), "NOT_ENABLED") {
			return nil
		}
		return err
	})
}
