package sublink

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// master returns the link that the sublink is made from.
func (s *Spec) master(p *nl.Pair) (*nl.Link, error) {
	c, where := p.Host, "on the host"
	if s.LinkInContainer {
		c, where = p.Sandbox, "in the sandbox (linkInContainer)"
	}
	if s.Master == "" {
		return defaultMaster(c, where)
	}
	m, err := c.LinkByName(s.Master)
	if nl.NotFound(err) {
		return nil, cnierr.Explain(cnierr.Config("failed to lookup master %q: Link not found", s.Master), "no such interface %s: name one of `ip link`", where)
	}
	return m, err
}

func defaultMaster(c *nl.Conn, where string) (*nl.Link, error) {
	r, err := c.DefaultRoute()
	if nl.NoRoute(err) {
		return nil, cnierr.Explain(cnierr.Config("no default route interface found"), "%s: say which interface to use (master)", where)
	}
	if err != nil {
		return nil, err
	}
	return c.LinkByIndex(r.Index)
}

// fits says before anything is made why the master cannot have the sublink, where
// the kernel would not, or only with a number.
func (s *Spec) fits(c *plugin.Call, m *nl.Link) error {
	switch {
	case m.Flags&unix.IFF_LOOPBACK != 0:
		return cnierr.Config("master %q: is the loopback interface: choose one that leads to a network", m.Name)
	case s.Shared && busyPort(m):
		return cnierr.Config("master %q: is a port of a %s, which gets all its traffic: use that as master", m.Name, m.PortKind)
	case s.MTU > m.MTU:
		return cnierr.Explain(cnierr.Config("invalid MTU %d, must be [0, master MTU(%d)]", s.MTU, m.MTU), "lower mtu or raise that of master %q", m.Name)
	}
	if !m.Up() {
		c.Note("master %q is down: the container has no network until `ip link set %s up`", m.Name, m.Name)
	}
	if s.Shared && s.MAC != nil && !s.LinkInContainer && wireless(m.Name) {
		c.Note("master %q: is wireless: access points drop what comes from another MAC address than the station's; ipvlan shares it", m.Name)
	}
	return nil
}

// busyPort reports whether what the link receives goes to the bridge or bond
// that it is a port of. A VRF leaves it to the link's sublinks.
func busyPort(m *nl.Link) bool { return m.Master != 0 && m.PortKind != "vrf" }

func wireless(name string) bool {
	_, err := os.Stat("/sys/class/net/" + name + "/phy80211")
	return err == nil
}

// explain puts the kernel's refusal into words.
func (s *Spec) explain(c *plugin.Call, m *nl.Link, err error) error {
	switch {
	case cnierr.Code(err) != cnierr.Internal:
		return err
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("this kernel has no links of kind %s (`modprobe %s` tells why): %w", s.Kind, s.Kind, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("master %q: %s: %w", m.Name, s.rival(c, m), err)
	case errors.Is(err, unix.EEXIST) && s.Kind == "vlan":
		return fmt.Errorf("master %q: has an interface with this VLAN ID already, on the host or in another sandbox: use that one as master of a macvlan, or another ID: %w", m.Name, err)
	case errors.Is(err, unix.ENETDOWN) && s.Kind == "vlan": // which cannot be up on a master that is down
		return cnierr.Newf(cnierr.TryAgain, "master %q: is down: `ip link set %s up` first: %w", m.Name, m.Name, err)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("master %q: another interface on it has this address: %w", m.Name, err)
	case errors.Is(err, unix.EINVAL) && s.Kind == "macvlan":
		return fmt.Errorf("master %q: cannot have this interface (one in mode passthru is always alone): %w", m.Name, err)
	}
	return err
}

// rival says who has the master's traffic, as far as the records tell. It reads
// all of them, which only a failure may cost.
func (s *Spec) rival(c *plugin.Call, m *nl.Link) string {
	const remedy = "give one of them another master, such as a VLAN sub-interface"
	networks, err := c.Journal.Networks()
	if err != nil {
		networks = nil
	}
	for _, n := range networks {
		if r, ok := s.rivalIn(c.Journal, n, m); ok {
			return fmt.Sprintf("container %s of network %q uses it with %s: %s", r.ContainerID, r.Network, r.Plugin, remedy)
		}
	}
	return "in use by a bridge, a bond or interfaces of another kind: " + remedy
}

func (s *Spec) rivalIn(dir journal.Dir, network string, m *nl.Link) (rival journal.Record, found bool) {
	records, _ := dir.Network(network) // what cannot be read is not named
	for _, r := range records {
		for _, l := range r.Links {
			if l.Parent == m.Index && l.Kind != s.Kind && !s.LinkInContainer {
				return r, true
			}
		}
	}
	return rival, false
}

// available says whether the kernel has such links and the host the master.
func (s *Spec) available(p *nl.Pair) error {
	// A request without a parent is refused either way, but differently.
	m := nl.LinkMessage("probe "+s.Kind, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0)
	m.Query = true
	m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, s.Kind).End()
	if err := p.Host.Do(m); errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("this kernel has no links of kind %s: %w", s.Kind, err)
	}
	if s.LinkInContainer {
		return nil
	}
	_, err := s.master(p)
	return err
}
