package overlay

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// batch is how many changes go to the kernel in one system call.
const batch = 256

// Links are an uplink and its bridge. Others have no entries yet, and those that were
// down have lost theirs.
type Links struct {
	Uplink, Bridge int // their indexes
	Up             bool
	MAC            [6]byte // the bridge's: with another one it has lost its neighbours
}

// State is what an uplink has after it was looked at.
type State struct {
	Links
	Host    netip.Addr // this host's address to the others
	MTU     int
	Entries int // of MAC addresses behind other hosts
	Missing int // entries that were not there
	Extra   int // entries that should not have been
}

// ErrNoUplink says that the host has no uplink of the network: nothing is attached to
// it since the boot.
var ErrNoUplink = errors.New("no uplink")

// Find returns a network's uplink and bridge.
func Find(c *nl.Conn, n *Network) (Links, error) {
	p, err := open(c, n)
	return p.links(), err
}

// Compare looks at what an uplink has, and changes nothing.
func Compare(c *nl.Conn, n *Network) (State, error) {
	p, err := open(c, n)
	if err != nil {
		return State{}, err
	}
	_, s, err := p.differences(n)
	return s, err
}

// Program makes an uplink have what it needs, and nothing else.
func Program(c *nl.Conn, n *Network) (State, error) {
	p, err := open(c, n)
	if err != nil {
		return State{}, err
	}
	changes, s, err := p.differences(n)
	if err != nil {
		return s, err
	}
	var errs []error
	for some := range slices.Chunk(changes, batch) {
		errs = append(errs, c.Do(some...))
	}
	return s, errors.Join(errs...)
}

// place is where the entries are.
type place struct {
	conn   *nl.Conn
	uplink vxlan.Uplink
	bridge int
	up     bool
	mac    mac // the bridge's
}

func (p place) links() Links {
	if p.uplink.Link == nil {
		return Links{}
	}
	return Links{p.uplink.Index, p.bridge, p.up, p.mac}
}

func open(c *nl.Conn, n *Network) (p place, err error) {
	p.conn = c
	l, err := c.LinkByName(n.VXLAN.Name())
	if nl.NotFound(err) {
		return p, ErrNoUplink
	}
	if err != nil {
		return p, err
	}
	u, ok := vxlan.Read(l)
	if !ok || u.ID != n.VXLAN.ID || u.Port != n.VXLAN.Port {
		return p, fmt.Errorf("%s: is not the VXLAN interface with id %d and port %d", l.Name, n.VXLAN.ID, n.VXLAN.Port)
	}
	b, err := c.LinkByName(n.Bridge)
	if nl.NotFound(err) || err == nil && u.Master != b.Index {
		return p, ErrNoUplink
	}
	if err != nil {
		return p, err
	}
	p.uplink, p.bridge, p.up, p.mac = u, b.Index, b.Up(), macOf(b.MAC)
	return p, nil
}

// differences returns the changes that make the kernel's entries those wanted. Entries
// are removed first.
func (p place) differences(n *Network) (changes []*nl.Message, s State, err error) {
	want := n.wanted()
	have, err := p.read(n)
	if err != nil {
		return nil, s, err
	}
	s = State{Links: p.links(), Host: p.uplink.Local, MTU: p.uplink.MTU, Entries: len(want.uplink)}
	index := p.uplink.Index
	if !n.Keep {
		changes = p.extra(want, have)
		s.Extra = len(changes)
	}
	for m, host := range want.uplink {
		if have.uplink[m] != host || !have.bridge[m] {
			s.Missing++
			changes = append(changes, nl.SetFDB(nl.FDB{Index: index, MAC: m.hardware(), Host: host}))
		}
	}
	for a, m := range want.neighs {
		if had, ok := have.neighs[a]; !ok || had != m {
			s.Missing++
			changes = append(changes, p.setNeigh(a, m))
		}
	}
	return changes, s, nil
}

// extra removes entries that are not wanted.
func (p place) extra(want, have table) (changes []*nl.Message) {
	for m := range have.bridge {
		if !want.bridge[m] {
			changes = append(changes, nl.DelFDB(nl.FDB{Index: p.uplink.Index, MAC: m.hardware()}))
		}
	}
	for m, host := range have.uplink {
		if !want.bridge[m] {
			changes = append(changes, nl.DelFDB(nl.FDB{Index: p.uplink.Index, MAC: m.hardware(), Host: host}))
		}
	}
	for a, m := range have.neighs {
		if _, wanted := want.neighs[a]; !wanted {
			changes = append(changes, nl.DelNeigh(nl.Neigh{Index: p.bridge, IP: a, MAC: m.hardware()}))
		}
	}
	return changes
}

func (p place) setNeigh(a netip.Addr, m mac) *nl.Message {
	set := nl.SetNeigh(nl.Neigh{Index: p.bridge, IP: a, MAC: m.hardware(), State: unix.NUD_PERMANENT})
	if a.Is6() {
		set.Ignore = []unix.Errno{unix.ENOENT, unix.EAFNOSUPPORT} // IPv6 is disabled on the bridge
	}
	return set
}

// read returns the entries that are there.
func (p place) read(n *Network) (table, error) {
	t := newTable()
	forwarding, err := p.conn.Neighs(unix.AF_BRIDGE)
	if err != nil {
		return t, err
	}
	for _, e := range forwarding {
		m := macOf(e.MAC)
		switch {
		case e.Index != p.uplink.Index || m == macOf(p.uplink.MAC):
		case e.Bridge != 0:
			t.bridge[m] = true
		case e.IP.IsValid():
			t.uplink[m] = e.IP
		}
	}
	for _, family := range families(n.Subnets) {
		neighs, err := p.conn.Neighs(family)
		if err != nil {
			return t, err
		}
		for _, e := range neighs {
			if e.Index == p.bridge && e.State&unix.NUD_PERMANENT != 0 && slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Contains(e.IP) }) {
				t.neighs[e.IP] = macOf(e.MAC)
			}
		}
	}
	return t, nil
}

func families(subnets []netip.Prefix) []uint8 {
	all := map[uint8]bool{}
	for _, s := range subnets {
		if s.Addr().Is4() {
			all[unix.AF_INET] = true
		} else {
			all[unix.AF_INET6] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}
