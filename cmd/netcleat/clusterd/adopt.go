package clusterd

import (
	"slices"

	"github.com/netcleat/netcleat/pkg/slot"
)

// sawReset reports whether an operator has reset the cluster since this host last
// looked. What etcd was before does not count then: what hosts use is the truth, and
// each host writes its own part of it. A reset that has been seen is none: that
// would be an older state again.
func (d *daemon) sawReset(l listing) bool {
	for _, k := range l.keys {
		if k.key != resetKey || !slot.IsHost(k.value) || slices.Contains(d.memory.Resets, k.value) {
			continue
		}
		d.log.Printf("host %s: adopting reset %s", d.host, k.value)
		d.memory.Resets = append(d.memory.Resets, k.value)
		d.memory.Resets = slices.Clone(d.memory.Resets[max(0, len(d.memory.Resets)-someSessions):])
		d.memory.Adopting, d.memory.Entered, d.memory.Revision, d.memory.Cluster = true, 0, l.rev, l.cluster
		if d.restored {
			d.state, d.restored, d.why = starting, false, nil
		}
		d.startOver()
		return true
	}
	return false
}

// startOver drops what was read of another history, the revisions of which mean nothing.
func (d *daemon) startOver() {
	d.store.rewatch()
	clear(d.hosts)
	clear(d.status)
	for _, n := range d.nets {
		n.layout, n.layoutRev = nil, 0
		clear(n.slots)
		clear(n.needs)
		clear(n.denials)
		clear(n.uplink.tunnels)
		clear(n.naming.keys)
		n.reset()
	}
}

// uses reports whether the plugin may hand out anything.
func (d *daemon) uses() bool {
	for _, n := range d.nets {
		if len(n.using) > 0 {
			return true
		}
	}
	return false
}

// adopt writes what the host uses of a network, after a reset: it is the owner of
// that, whatever etcd says. Only another host that has said so before comes first.
func (d *daemon) adopt(n *network) {
	for _, p := range n.using {
		s := n.slot(p.Slot)
		if s.busy || !s.settled() || s.bad != nil || d.ticks < s.pausedTo || s.owners[d.host].Contain(p) {
			continue
		}
		if free := s.owners.Set(d.host, nil).Free(n.layout.Whole(p.Slot)); !free.Contain(p) {
			d.log.Printf("network %s: %s is owned by another host, too: containers of both may have the same addresses", n.name, n.layout.Prefix(0, p))
			if err := d.replace(n, n.using.Without(p)); err != nil {
				d.log.Print(err) // the next tick tries again
			}
			return
		}
		d.write(n, p.Slot, s.owners.Set(d.host, s.owners[d.host].With(p)), nil)
	}
}

// adopted ends the adoption when all that the host uses is its own.
func (d *daemon) adopted() {
	if !d.memory.Adopting || d.state != running {
		return
	}
	for _, n := range d.nets {
		if len(n.using.Minus(n.mine(d.host))) > 0 {
			return
		}
	}
	d.memory.Adopting = false
	if err := d.local.save(d.memory); err != nil {
		d.log.Print(err)
		d.memory.Adopting = true // the next tick tries again
		return
	}
	d.log.Printf("host %s: %d addresses adopted", d.host, d.adoptedSize())
	for name := range d.nets {
		d.dirty[name] = true
	}
	d.work()
}

func (d *daemon) adoptedSize() (n uint64) {
	for _, net := range d.nets {
		n += net.using.Size()
	}
	return n
}
