package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/dbus"
	"github.com/netcleat/netcleat/pkg/nft"
)

// usesFirewalld reports whether the network's packets have to be accepted by
// firewalld. That it runs is seen by what it has in the kernel: its table, or its
// chain in iptables' filter table.
func (j *job) usesFirewalld(c *nft.Conn) bool {
	if j.Backend != "" {
		return j.Backend == onFirewalld
	}
	for _, f := range []nft.Family{nft.Inet, nft.IPv4} {
		if there, err := c.HasTable(nft.Table{Family: f, Name: "firewalld"}); err == nil && there {
			return true
		}
	}
	info, err := c.GetChain(native{}.chain("FORWARD_direct"))
	return err == nil && info != nil
}

const (
	busName   = "org.fedoraproject.FirewallD1"
	busPath   = "/org/fedoraproject/FirewallD1"
	busZone   = "org.fedoraproject.FirewallD1.zone"
	inZone    = "ZONE_ALREADY_SET"
	notInZone = "UNKNOWN_SOURCE"
)

// zoneCall calls a method of firewalld's zones with a source.
func (j *job) zoneCall(bus *dbus.Conn, method string, source netip.Prefix) (dbus.Reply, error) {
	return bus.Call(dbus.Method{Dest: busName, Path: busPath, Interface: busZone, Name: method}, j.Zone, source.String())
}

// sources runs fn with the bus for each prefix.
func (j *job) sources(prefixes []netip.Prefix, fn func(*dbus.Conn, netip.Prefix) error) error {
	if len(prefixes) == 0 {
		return nil
	}
	bus, err := dbus.System()
	if err != nil {
		return fmt.Errorf("firewalld: %w", err)
	}
	var errs []error
	for _, p := range prefixes {
		errs = append(errs, fn(bus, p))
	}
	return errors.Join(append(errs, bus.Close())...)
}

// addSources puts the network's prefixes into the zone.
func (j *job) addSources() error {
	return j.sources(j.Prefixes, func(bus *dbus.Conn, p netip.Prefix) error {
		if r, err := j.zoneCall(bus, "querySource", p); err == nil && r.Bool() {
			return nil
		}
		what := fmt.Sprintf("firewalld: add source %s to zone %s", p, j.Zone)
		if err := j.gate.Pass(what); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		_, err := j.zoneCall(bus, "addSource", p)
		if err != nil && strings.Contains(err.Error(), inZone) {
			return j.checkSource(bus, p) // another zone's is no success
		}
		if err != nil {
			return fmt.Errorf("failed to add the address %s to %s zone: %w", p, j.Zone, err)
		}
		return nil
	})
}

func (j *job) checkSource(bus *dbus.Conn, p netip.Prefix) error {
	r, err := j.zoneCall(bus, "querySource", p)
	if err != nil {
		return fmt.Errorf("failed to find the address %s in %s zone: %w", p, j.Zone, err)
	}
	if !r.Bool() {
		return cnierr.Check("failed to find the address %s in %s zone (netcleat reconcile restores it)", p, j.Zone)
	}
	return nil
}

func (j *job) checkSources() error { return j.sources(j.Prefixes, j.checkSource) }

// removeSources takes prefixes out of the zone. Where firewalld does not run
// there is no zone.
func (j *job) removeSources(prefixes []netip.Prefix) error {
	if len(prefixes) == 0 || firewalldRuns() != nil {
		return nil
	}
	return j.sources(prefixes, func(bus *dbus.Conn, p netip.Prefix) error {
		_, err := j.zoneCall(bus, "removeSource", p)
		if err != nil && !strings.Contains(err.Error(), notInZone) {
			return fmt.Errorf("firewalld: remove source %s from zone %s: %w", p, j.Zone, err)
		}
		return nil
	})
}

// firewalldRuns returns nil where firewalld answers on the bus.
func firewalldRuns() error {
	bus, err := dbus.System()
	if err != nil {
		return fmt.Errorf("firewalld: %w", err)
	}
	_, err = bus.Call(dbus.Method{Dest: dbus.Bus, Path: "/org/freedesktop/DBus", Interface: dbus.Bus, Name: "GetNameOwner"}, busName)
	if err != nil {
		err = fmt.Errorf("firewalld: %w", err)
	}
	return errors.Join(err, bus.Close())
}
