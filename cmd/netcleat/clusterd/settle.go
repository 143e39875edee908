package clusterd

import (
	"fmt"
	"slices"

	"github.com/netcleat/netcleat/pkg/slot"
)

// backoff is for how many ticks something is left alone that failed.
const backoff = 2

// settle brings one network forward: what is the host's is used, who waits is served,
// missing blocks are claimed; blocks that other hosts need, or that are unused, are released.
func (d *daemon) settle(n *network) {
	if n.conf == nil || !d.laidOut(n) {
		return
	}
	if d.memory.Adopting {
		d.adopt(n)
		return
	}
	d.forward(n)
	if !d.publish(n) {
		return
	}
	d.touch(n)
	d.serve(n)
	d.take(n)
	d.say(n)
	d.give(n)
}

// laidOut records how the network is cut, or compares. The first host decides.
func (d *daemon) laidOut(n *network) bool {
	mine := n.conf.Layout.String()
	switch {
	case n.layout != nil && n.layout.String() == mine:
		return true
	case n.layout != nil:
		for _, r := range n.waiting {
			r.done(misfit(n, n.conf))
		}
		n.waiting = nil
		return false
	case n.claiming || n.layoutRev != 0 || d.ticks < n.pausedTo:
		return false
	}
	n.claiming = true
	d.send(txn{compare: compare{layoutKey(n.name), 0}, value: mine}, func(a answer) {
		n.claiming = false
		d.dirty[n.name] = true
		switch {
		case a.err != nil:
			n.pausedTo = d.ticks + backoff
		case a.ok:
			n.learn(layoutPart, "", kv{layoutKey(n.name), mine, a.rev}, a.rev)
		default:
			n.learn(layoutPart, "", a.key(), a.rev)
		}
	})
	return false
}

// key is the key that the txn was about, as it is.
func (a answer) key() kv {
	if len(a.now) == 0 {
		return kv{}
	}
	return a.now[0]
}

// publish makes what is the host's what the plugin uses. Others cannot take a part
// from a host while it has its session: an etcd that has it so has forgotten something.
func (d *daemon) publish(n *network) bool {
	target := n.usable(d.host, d.fence)
	if slices.Equal(target, n.using) {
		return true
	}
	mine := n.mine(d.host)
	for _, p := range n.using {
		if lost := (slot.Parts{p}).Minus(mine); len(lost) > 0 && !d.retired(n, lost) {
			d.forgotten(fmt.Sprintf("%d addresses of network %s that this host uses are not its own", lost.Size(), n.name))
			return false
		}
	}
	if err := d.replace(n, target); err != nil {
		d.log.Print(err) // the next tick tries again
	}
	return true
}

// retired reports whether the parts are being given away.
func (d *daemon) retired(n *network, parts slot.Parts) bool {
	for _, p := range parts {
		if s := n.slots[p.Slot]; s == nil || !s.retiring.Contain(p) {
			return false
		}
	}
	return true
}

// touch writes slots as they are, after which a request with unknown outcome cannot
// take effect any more.
func (d *daemon) touch(n *network) {
	for i, s := range n.slots {
		if s.settled() || s.busy || s.rev == 0 || len(s.owners[d.host]) == 0 || d.ticks < s.pausedTo {
			continue
		}
		d.write(n, i, s.owners, nil)
	}
}

// write asks for a slot to have these owners.
func (d *daemon) write(n *network, i uint64, owners slot.Owners, guards []compare) {
	s := n.slot(i)
	value, key := owners.String(), slotKey(n.name, i)
	before := s.rev
	s.busy = true
	d.send(txn{compare: compare{key, before}, value: value, guards: guards}, func(a answer) {
		s.busy, s.retiring = false, nil
		d.dirty[n.name] = true
		if s.claim {
			s.claim, n.claiming = false, false
			if a.err != nil {
				n.pausedTo = d.ticks + backoff
			}
		}
		now := kv{key, value, a.rev}
		switch {
		case a.err != nil:
			s.lost, s.isLost, s.pausedTo = before, true, d.ticks+backoff
			return
		case !a.ok:
			now = a.key()
		case value == "":
			now.rev = 0
		}
		s.learn(a.rev, now, n.layout.Bits(), i)
	})
}

// look calls fn while the leases are locked.
func (d *daemon) look(n *network, fn func(view)) bool {
	err := d.local.update(n.conf, n.using, func(v view) slot.Parts {
		fn(v)
		return n.using
	})
	if err != nil {
		d.log.Printf("network %s: %v", n.name, err)
	}
	return err == nil
}

// serve answers the requests that can be.
func (d *daemon) serve(n *network) {
	if len(n.waiting) == 0 {
		return
	}
	var free uint64
	if !d.look(n, func(v view) { free = v.free(n.using) }) {
		return
	}
	n.waiting = slices.DeleteFunc(n.waiting, func(r *request) bool {
		if err := n.denied(r); err != nil {
			r.done(err)
			return true
		}
		ok := free > 0
		switch {
		case r.uplink:
			ok = d.ready(n)
		case !r.any:
			ok = !slices.ContainsFunc(r.want, func(p slot.Part) bool { return !n.using.Contain(p) })
		}
		if ok {
			r.done(nil)
		}
		return ok
	})
}

// denied reports whether an owner has said no.
func (n *network) denied(r *request) error {
	for _, k := range n.denials {
		if x, err := parseDenial(k.value); err == nil && x.token == r.token {
			return fmt.Errorf("the address is in a block of host %s, where it is %s", x.host, x.why)
		}
	}
	return nil
}

// missing returns the first requested address that this host does not own.
func (n *network) missing(r *request) (p slot.Part, ok bool) {
	for _, p := range r.want {
		if !n.using.Contain(p) {
			return p, true
		}
	}
	return p, false
}

// take claims what the host is short of: one part at a time.
func (d *daemon) take(n *network) {
	if n.claiming || d.stopped != "" || d.ticks < n.pausedTo {
		return
	}
	for _, r := range n.waiting {
		p, ok := n.missing(r)
		if r.any {
			p, ok = n.pick(d.host, d.someFree())
		}
		if ok && d.claim(n, p) {
			return
		}
	}
	if len(n.waiting) > 0 || len(n.others(d.host)) > 0 || n.looked == d.ticks {
		return
	}
	n.looked = d.ticks
	var free uint64
	if d.look(n, func(v view) { free = v.free(n.using) }) && free < n.spare() {
		if p, ok := n.pick(d.host, d.someFree()); ok {
			d.claim(n, p)
		}
	}
}

// spare is how many addresses the host wants to have in hand: half a block.
func (n *network) spare() uint64 { return max(1, n.layout.Whole(0).Size()/2) }

// claim asks for a part that has no owner.
func (d *daemon) claim(n *network, p slot.Part) bool {
	s := n.slot(p.Slot)
	if s.busy || s.bad != nil || s.rev != 0 && !s.owners.Free(n.layout.Whole(p.Slot)).Contain(p) {
		return false
	}
	n.claiming, s.claim = true, true
	n.tries++
	d.write(n, p.Slot, s.owners.Set(d.host, s.owners[d.host].With(p)), nil)
	return true
}

// say writes what the host is short of where nothing is free, and removes that when
// it is not.
func (d *daemon) say(n *network) {
	if n.needing || d.ticks < n.needTo {
		return
	}
	value := ""
	for _, r := range n.waiting {
		p, ok := n.missing(r)
		if r.any && len(n.free(1)) == 0 || ok {
			value = need{token: r.token, any: r.any, at: p}.String()
			break
		}
	}
	if n.claiming || value == n.needs[d.host].value {
		return
	}
	n.needing = true
	t := txn{compare: compare{needKey(n.name, d.host), n.needs[d.host].rev}, value: value}
	d.send(t, func(a answer) {
		n.needing = false
		d.dirty[n.name] = true
		switch {
		case a.err != nil:
			n.needTo = d.ticks + backoff
		case !a.ok:
			keep(n.needs, d.host, a.key(), a.rev)
		case value == "":
			keep(n.needs, d.host, kv{}, a.rev)
		default:
			keep(n.needs, d.host, kv{t.key, value, a.rev}, a.rev)
		}
	})
}
