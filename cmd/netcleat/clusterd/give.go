package clusterd

import (
	"slices"

	"github.com/netcleat/netcleat/pkg/slot"
)

// idleTicks is for how long a block is surplus before it goes back.
const idleTicks = 60

// give gives away what others need, and what has been surplus for a while.
func (d *daemon) give(n *network) {
	for _, h := range n.others(d.host) {
		want, err := parseNeed(n.needs[h].value)
		switch {
		case err != nil:
		case want.any:
			d.giveAny(n)
		default:
			d.giveThis(n, h, want)
		}
	}
	d.giveSurplus(n)
}

// giveAny frees a part of what this host has, where nothing is free: the largest idle
// one that leaves it half.
func (d *daemon) giveAny(n *network) {
	if n.giving(d.host) || len(n.waiting) > 0 || len(n.free(1)) > 0 {
		return
	}
	d.retire(n, "", func(v view) (slot.Part, bool) {
		half := max(1, v.free(n.using)/2)
		return n.largest(v, func(p slot.Part) bool { return n.conf.Capacity(p) <= half })
	})
}

// giving reports whether this host is giving something away.
func (n *network) giving(host string) bool {
	for _, s := range n.slots {
		if len(s.retiring) > 0 || s.isLost && !s.settled() && len(s.owners[host]) > 0 {
			return true
		}
	}
	return false
}

// largest finds the largest idle part that fits and of which nothing is asked for.
func (n *network) largest(v view, fits func(slot.Part) bool) (best slot.Part, ok bool) {
	var visit func(p slot.Part)
	visit = func(p slot.Part) {
		switch {
		case ok && p.Bits <= best.Bits:
		case n.conf.Capacity(p) == 0:
		case fits(p) && v.idle(p):
			best, ok = p, true
		case p.Bits > 0:
			for _, h := range p.Halves() {
				visit(h)
			}
		}
	}
	for _, p := range n.using {
		if s := n.slots[p.Slot]; !s.busy && s.settled() {
			visit(p)
		}
	}
	return best, ok
}

// giveThis hands one address to a host, or says why not.
func (d *daemon) giveThis(n *network, host string, want need) {
	p := slot.Part{Slot: want.at.Slot, Off: want.at.Off}
	s := n.slots[p.Slot]
	to, err := parseSession(d.hosts[host].value)
	if s == nil || s.busy || !s.settled() || !n.using.Contain(p) || err != nil || to.released || to.removed {
		return
	}
	if d.retire(n, host, func(v view) (slot.Part, bool) { return p, v.idle(p) }) {
		return
	}
	if x, err := parseDenial(n.denials[host].value); err == nil && x.token == want.token || n.denying {
		return
	}
	n.denying = true
	t := txn{compare: compare{denyKey(n.name, host), n.denials[host].rev}, value: denial{want.token, d.host, denyHeld}.String()}
	d.send(t, func(a answer) {
		n.denying = false
		if a.err == nil && a.ok {
			keep(n.denials, host, kv{t.key, t.value, a.rev}, a.rev)
		} else if a.err == nil {
			keep(n.denials, host, a.key(), a.rev)
		}
	})
}

// retire stops the use of a part, first here and then in the cluster. It becomes to's
// or, with "", free. choose is called while the leases are locked.
func (d *daemon) retire(n *network, to string, choose func(view) (slot.Part, bool)) bool {
	var p slot.Part
	ok := false
	before := n.using
	err := d.local.update(n.conf, before, func(v view) slot.Parts {
		if p, ok = choose(v); !ok {
			return before
		}
		return before.Without(p)
	})
	if err != nil || !ok {
		return false
	}
	n.using = before.Without(p)
	s := n.slots[p.Slot]
	s.retiring = slot.Parts{p}
	owners := s.owners.Set(d.host, s.owners[d.host].Without(p))
	var guards []compare
	if to != "" {
		owners = owners.Set(to, owners[to].With(p))
		guards = []compare{{hostKeys + to, d.hosts[to].rev}} // that it is there
	}
	d.write(n, p.Slot, owners, guards)
	return true
}

// giveSurplus frees a part that has been idle for a while, where the host has two
// blocks more than it uses.
func (d *daemon) giveSurplus(n *network) {
	if len(n.waiting) > 0 || n.giving(d.host) || len(n.using) == 0 || n.weighed == d.ticks {
		return
	}
	n.weighed = d.ticks
	var surplus slot.Part
	found := false
	ok := d.look(n, func(v view) {
		free, spare := v.free(n.using), 2*n.spare()
		if free <= spare { // no part is so small: to look at each costs more than the rest of a tick
			return
		}
		surplus, found = n.largest(v, func(p slot.Part) bool { return free >= n.conf.Capacity(p)+spare })
	})
	if !ok || !found {
		clear(n.idle)
		return
	}
	since, known := n.idle[surplus]
	if !known {
		clear(n.idle)
		n.idle[surplus] = d.ticks
		return
	}
	if d.ticks-since < idleTicks {
		return
	}
	delete(n.idle, surplus)
	d.retire(n, "", func(v view) (slot.Part, bool) {
		return surplus, v.idle(surplus) && slices.ContainsFunc(n.using, func(p slot.Part) bool { return p.Contains(surplus) })
	})
}
