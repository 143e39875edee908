package clusterd

import (
	"fmt"
	"slices"
)

// begin makes this daemon the host's. It is called again until it has succeeded.
func (d *daemon) begin() error {
	m, err := d.local.load()
	if err != nil {
		return err
	}
	d.memory = m
	d.list(d.enter)
	return nil
}

// list reads everything.
func (d *daemon) list(done func(listing)) {
	known := d.memory.Revision
	d.store.list(func(l listing) {
		d.heard(l.err)
		if l.err == nil && !d.sawReset(l) && !d.newer(known, l.rev, l.cluster) {
			l = listing{err: d.why}
		}
		done(l)
	})
}

// key returns a key of a listing, or none.
func (l listing) key(key string) kv {
	if i := slices.IndexFunc(l.keys, func(k kv) bool { return k.key == key }); i >= 0 {
		return l.keys[i]
	}
	return kv{}
}

// enter writes the session, in view of the one that is there.
func (d *daemon) enter(l listing) {
	if l.err != nil || d.state != starting && d.state != released {
		return
	}
	now := l.key(hostKeys + d.host)
	s, err := parseSession(now.value)
	switch {
	case now.rev == 0 && d.uses() && !d.memory.Adopting:
		d.forgotten("it does not know this host, which uses blocks")
		return
	case now.rev < d.memory.Entered && now.rev != 0:
		d.forgotten(fmt.Sprintf("this host's key has been at revision %d, and is at %d", d.memory.Entered, now.rev))
		return
	case now.rev == 0:
		d.state = starting
	case err == nil && s.removed:
		d.state = starting
		if !d.comesBack() {
			return // the next tick tries again
		}
	case err == nil && s.reset:
		d.state = starting
		if !d.memory.Adopting {
			d.why = fmt.Errorf("host %s: `netcleat cluster reset` has not finished: run it again", d.host)
			return
		}
	case err != nil:
		d.refuse(fmt.Errorf("etcd key %s: %w", now.key, err))
		return
	case s.released:
		d.state, d.why = released, fmt.Errorf("host %s: `netcleat cluster release-host %s` has not finished: run it again", d.host, d.host)
		return
	case s.id == d.session:
		d.entered(now.rev)
		return
	case !slices.Contains(d.memory.Sessions, s.id):
		d.refuse(fmt.Errorf("host %s: the cluster knows a host of this name that is not this installation (session %s). If that one is running, give this host another name; if it no longer exists: `netcleat cluster release-host %s`", d.host, s.id, d.host))
		return
	}
	d.remember()
	if err := d.local.save(d.memory); err != nil {
		d.log.Print(err)
		return
	}
	t := txn{compare: compare{hostKeys + d.host, now.rev}, value: d.session}
	d.store.txn(t, func(a answer) {
		if a.err == nil && a.ok {
			d.entered(a.rev)
		}
	})
}

// comesBack forgets the blocks that an operator has released meanwhile, and reports
// whether it could.
func (d *daemon) comesBack() bool {
	if d.uses() {
		d.abandon(fmt.Errorf("host %s: an operator has released its blocks; its containers keep their addresses, which others may get: restart them", d.host))
	}
	if d.uses() {
		return false
	}
	d.memory.Adopting = false
	return true
}

// someSessions bounds how many are remembered.
const someSessions = 64

// remember adds the session to those that the host's key may have. Earlier ones stay:
// the write of one may take effect late, after a release.
func (d *daemon) remember() {
	if slices.Contains(d.memory.Sessions, d.session) {
		return
	}
	all := append(d.memory.Sessions, d.session)
	d.memory.Sessions = slices.Clone(all[max(0, len(all)-someSessions):])
}

// entered reads everything again: only now can no request of an earlier daemon take
// effect.
func (d *daemon) entered(rev int64) {
	if d.state == running || d.state == refused {
		return
	}
	d.rev, d.state = rev, listing2
	d.memory.Entered = rev // which is saved with the revision
	d.list(d.run)
}

// run starts with what the cluster says.
func (d *daemon) run(l listing) {
	if l.err != nil || d.state != listing2 {
		return
	}
	d.state, d.why = running, nil
	for _, n := range d.nets {
		n.reset()
	}
	d.relist(l)
	d.adopted()
}

// reset forgets what was asked for in a session that has ended: none of it can take
// effect any more.
func (n *network) reset() {
	n.claiming, n.needing, n.denying, n.uplink.telling = false, false, false, false
	n.pausedTo, n.needTo = 0, 0
	n.naming.startOver()
	for _, s := range n.slots {
		s.busy, s.claim, s.isLost, s.retiring, s.pausedTo = false, false, false, nil, 0
	}
}

// retry is called by ticks until the daemon runs.
func (d *daemon) retry() error {
	switch d.state {
	case starting, released:
		return d.begin()
	case listing2:
		d.list(d.run)
	case refused:
		if d.restored {
			d.list(d.enter) // until an operator has reset it
		}
	case running:
		d.adopted()
	}
	return nil
}
