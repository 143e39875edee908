package clusterd

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	"github.com/netcleat/netcleat/pkg/slot"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// forwarder programs this host's uplinks.
type forwarder interface {
	program(n *overlay.Network) (overlay.State, error)
	find(n *overlay.Network) (overlay.Links, error)
}

// tunnel is how a host is reached on a network: the value of net/NAME/vtep/HOST.
type tunnel struct {
	id, port int
	addr     netip.Addr
}

func (t tunnel) String() string { return fmt.Sprintf("%d %d %s", t.id, t.port, t.addr) }

func parseTunnel(s string) (t tunnel, err error) {
	f := strings.Fields(s)
	if len(s) > maxLine || len(f) != 3 {
		return t, fmt.Errorf("vtep %.80q", s)
	}
	c := vxlan.Conf{Local: f[2]}
	if c.ID, err = strconv.Atoi(f[0]); err == nil {
		c.Port, err = strconv.Atoi(f[1])
	}
	if err == nil {
		err = c.Check()
	}
	if err != nil {
		return t, fmt.Errorf("vtep %.80q: %w", s, err)
	}
	addr, err := netip.ParseAddr(c.Local)
	return tunnel{c.ID, c.Port, addr}, err
}

// repairTicks is how often the kernel's entries are compared although nothing is known
// to have changed.
const repairTicks = 60

// uplink is what the daemon knows of its uplink of an overlay network.
type uplink struct {
	tunnels  map[string]kv // of hosts, by what they say of themselves
	done     *overlay.Network
	links    overlay.Links // that it was done to
	here     netip.Addr    // this host's address on it; not valid: there is no uplink
	repairAt int           // the tick at which the entries are compared
	pausedTo int           // the tick before which nothing is tried again
	telling  bool          // this host's own key is being written
	said     string        // the last error that was logged
}

// forward makes the kernel forward to the hosts that have the network's blocks. It is
// called before a block is handed out of, so that none of its addresses is still
// looked for on another host.
func (d *daemon) forward(n *network) {
	if d.forwarder == nil || n.conf.Overlay == nil || n.layout == nil {
		return
	}
	u := &n.uplink
	want := d.overlay(n)
	if u.done != nil && u.done.Equal(want) && d.ticks < u.repairAt || u.done == nil && d.ticks < u.pausedTo {
		d.tell(n)
		return
	}
	s, err := d.forwarder.program(want)
	switch {
	case errors.Is(err, overlay.ErrNoUplink):
		u.done, u.here, u.pausedTo = nil, netip.Addr{}, d.ticks+1
		n.naming.absent, n.naming.told = true, false
		return
	case err != nil:
		u.done, u.pausedTo = nil, d.ticks+backoff
		d.sayOnce(n, err.Error())
		return
	}
	if u.done != nil && u.done.Equal(want) && s.Missing+s.Extra > 0 {
		d.log.Printf("network %s: forwarding repaired: %d entries were missing and %d wrong", n.name, s.Missing, s.Extra)
	}
	u.done, u.links, u.here, u.repairAt, n.naming.absent = want, s.Links, s.Host, d.ticks+repairTicks, false
	n.naming.told = false
	d.tell(n)
}

// overlay is what the host has to forward: the blocks of the others.
func (d *daemon) overlay(n *network) *overlay.Network {
	// While no block changes hands, as after etcd was reset, hosts that are not heard of yet
	// are where they were.
	o := &overlay.Network{VXLAN: n.conf.Overlay, Bridge: n.conf.Bridge, Keep: d.stopped != ""}
	for _, set := range n.conf.Sets {
		for _, r := range set.Ranges() {
			o.Subnets, o.Gateways = append(o.Subnets, r.Subnet), append(o.Gateways, r.Gateway)
		}
	}
	for _, s := range n.slots {
		for host, parts := range s.owners {
			to, ok := d.tunnel(n, host)
			if !ok {
				continue
			}
			for _, p := range parts {
				o.Blocks = append(o.Blocks, overlay.Block{Prefixes: n.prefixes(p), Host: to})
			}
		}
	}
	slices.SortFunc(o.Blocks, func(a, b overlay.Block) int { return a.Prefixes[0].Addr().Compare(b.Prefixes[0].Addr()) })
	return o
}

func (n *network) prefixes(p slot.Part) []netip.Prefix {
	all := make([]netip.Prefix, n.layout.Sets())
	for i := range all {
		all[i] = n.layout.Prefix(i, p)
	}
	return all
}

// tunnel returns another host's address on the network.
func (d *daemon) tunnel(n *network, host string) (to netip.Addr, ok bool) {
	k, known := n.uplink.tunnels[host]
	if host == d.host || !known {
		return to, false
	}
	t, err := parseTunnel(k.value)
	here := n.uplink.here
	switch {
	case err != nil:
		d.sayOnce(n, "host "+host+": "+err.Error())
	case t.id != n.conf.Overlay.ID || t.port != n.conf.Overlay.Port:
		d.sayOnce(n, fmt.Sprintf("host %s has VXLAN id %d and port %d, this one %d and %d: it is not reached", host, t.id, t.port, n.conf.Overlay.ID, n.conf.Overlay.Port))
	case here.IsValid() && here.Is4() != t.addr.Is4():
		d.sayOnce(n, fmt.Sprintf("host %s is at %s, this one at %s: an underlay has one family", host, t.addr, here))
	case here == t.addr:
		d.sayOnce(n, fmt.Sprintf("host %s says that it is at %s, as this one is: it is not reached", host, t.addr))
	default:
		return t.addr, true
	}
	return to, false
}

func (d *daemon) sayOnce(n *network, text string) {
	if n.uplink.said != text {
		n.uplink.said = text
		d.log.Printf("network %s: %s", n.name, text)
	}
}

// tell writes where this host is reached.
func (d *daemon) tell(n *network) {
	u := &n.uplink
	if u.telling || !u.here.IsValid() || d.told(n) || d.ticks < u.pausedTo {
		return
	}
	u.telling = true
	value := tunnel{n.conf.Overlay.ID, n.conf.Overlay.Port, u.here}.String()
	t := txn{compare: compare{vtepKey(n.name, d.host), u.tunnels[d.host].rev}, value: value}
	d.send(t, func(a answer) {
		u.telling = false
		d.dirty[n.name] = true
		switch {
		case a.err != nil:
			u.pausedTo = d.ticks + backoff
		case a.ok:
			keep(u.tunnels, d.host, kv{t.key, value, a.rev}, a.rev)
		default:
			keep(u.tunnels, d.host, a.key(), a.rev)
		}
	})
}

// told reports whether the others know where this host is reached.
func (d *daemon) told(n *network) bool {
	o := n.conf.Overlay
	return n.uplink.tunnels[d.host].value == tunnel{o.ID, o.Port, n.uplink.here}.String()
}

// ready reports whether the uplink forwards to all hosts, and they to this one.
func (d *daemon) ready(n *network) bool {
	return n.uplink.done != nil && n.uplink.here.IsValid() && d.told(n)
}

// renewed is called where the uplink was made, or its bridge.
func (n *network) renewed() {
	n.uplink.done, n.uplink.pausedTo = nil, 0
}

// linksChanged is called where interfaces of the host have changed: an uplink that was
// deleted is missed, and one that was made is programmed.
func (d *daemon) linksChanged() {
	for name, n := range d.nets {
		if n.conf == nil || n.conf.Overlay == nil || d.forwarder == nil {
			continue
		}
		now, err := d.forwarder.find(&overlay.Network{VXLAN: n.conf.Overlay, Bridge: n.conf.Bridge})
		if err == nil && n.uplink.done != nil && now == n.uplink.links || err != nil && n.uplink.done == nil {
			continue
		}
		n.renewed()
		d.dirty[name] = true
	}
	d.work()
}
