package clusterd

import (
	"fmt"
	"strings"

	"github.com/netcleat/netcleat/pkg/slot"
)

// relist takes the state of all keys: at the start, and where changes were missed.
func (d *daemon) relist(l listing) {
	there := map[string]bool{}
	for _, k := range l.keys {
		there[k.key] = true
		d.learn(k.key, k, l.rev)
	}
	for _, key := range d.keys() {
		if !there[key] {
			d.learn(key, kv{key: key}, l.rev)
		}
	}
	for name := range d.nets {
		d.dirty[name] = true
	}
	d.work()
}

// keys returns those that the daemon knows of.
func (d *daemon) keys() (all []string) {
	for h := range d.hosts {
		all = append(all, hostKeys+h)
	}
	for h := range d.status {
		all = append(all, statusKeys+h)
	}
	if d.stopped != "" {
		all = append(all, stopKey)
	}
	for name := range d.definitions.keys {
		all = append(all, overlayKeys+name)
	}
	for name, n := range d.nets {
		if n.layoutRev != 0 {
			all = append(all, layoutKey(name))
		}
		for i := range n.slots {
			all = append(all, slotKey(name, i))
		}
		for h := range n.needs {
			all = append(all, needKey(name, h))
		}
		for h := range n.denials {
			all = append(all, denyKey(name, h))
		}
		for h := range n.uplink.tunnels {
			all = append(all, vtepKey(name, h))
		}
		all = append(all, n.naming.list(name)...)
	}
	return all
}

// change is the state of a key as of a revision.
type change struct {
	kv
	at int64
}

// changed is called with changes of the store, in its order.
func (d *daemon) changed(all ...change) {
	for _, c := range all {
		if c.at > d.memory.Revision {
			d.memory.Revision = c.at
		}
		d.learn(c.key, c.kv, c.at)
	}
	d.work()
}

// learn takes the state of a key as of a revision.
func (d *daemon) learn(key string, k kv, at int64) {
	if len(k.value) > maxValue {
		d.log.Printf("etcd key %s: larger than %d bytes, ignored", key, maxValue)
		return
	}
	host, isHost := strings.CutPrefix(key, hostKeys)
	from, isStatus := strings.CutPrefix(key, statusKeys)
	defined, isOverlay := strings.CutPrefix(key, overlayKeys)
	ofNet, isNet := netKey(key)
	ofName, isName := nameKey(key)
	switch {
	case key == stopKey:
		d.stopped = k.value
	case isHost && slot.IsHost(host):
		keep(d.hosts, host, k, at)
		if host == d.host && d.state == running && k.rev != d.rev && at > d.rev {
			d.lostSession(k)
		}
	case isStatus && slot.IsHost(from):
		keep(d.status, from, k, at)
	case isNet && d.wentBack(ofNet, k, at):
		d.forgotten(fmt.Sprintf("the key %s is at revision %d, and has been later", key, k.rev))
	case isOverlay && isOverlayName(defined):
		keep(d.definitions.keys, defined, k, at)
		d.definitions.changed = true
	case isName:
		d.network(ofName.net).naming.learn(ofName, k, at)
		d.dirty[ofName.net] = true
	case isNet:
		n := d.network(ofNet.net)
		matters := n.matters(ofNet, d.host)
		n.learn(ofNet.part, ofNet.rest, k, at)
		if matters || n.matters(ofNet, d.host) {
			d.dirty[ofNet.net] = true
		}
	}
}

// wentBack reports whether a slot's key has an older revision than it had before.
func (d *daemon) wentBack(of keyOfNet, k kv, at int64) bool {
	i, ok := slotNumber(of.rest)
	if of.part != slotPart || !ok || k.rev == 0 {
		return false
	}
	s := d.network(of.net).slots[i]
	return s != nil && at >= s.seen && k.rev < s.rev
}

// matters reports whether a change of a key is worth a look at the network at once.
// What others own is not, unless a plugin waits: the next tick is soon enough.
func (n *network) matters(of keyOfNet, host string) bool {
	i, isSlot := slotNumber(of.rest)
	if of.part != slotPart || !isSlot || n.eager || len(n.waiting) > 0 {
		return true
	}
	s := n.slots[i]
	return s != nil && (s.busy || len(s.owners[host]) > 0)
}

func (n *network) learn(part, rest string, k kv, at int64) {
	switch {
	case part == layoutPart && rest == "":
		n.layoutRev, n.layout = k.rev, nil
		if l, err := slot.ParseLayout(k.value); err == nil && k.rev != 0 {
			n.layout = &l
			n.reread()
		}
	case part == slotPart:
		if i, ok := slotNumber(rest); ok {
			n.learnSlot(i, k, at)
		}
	case part == needPart && slot.IsHost(rest):
		keep(n.needs, rest, k, at)
	case part == denyPart && slot.IsHost(rest):
		keep(n.denials, rest, k, at)
	case part == vtepPart && slot.IsHost(rest):
		keep(n.uplink.tunnels, rest, k, at)
	}
}

func (n *network) learnSlot(i uint64, k kv, at int64) {
	s := n.slot(i)
	if n.layout == nil { // which comes later in a listing: see reread
		if at >= s.seen {
			s.seen, s.unread = at, &k
		}
		return
	}
	n.read(s, at, k, i)
}

// read reads a slot. One that the network does not have belongs to no one.
func (n *network) read(s *slotState, at int64, k kv, i uint64) {
	n.naming.lookAt(s.owners)
	s.learn(at, k, n.layout.Bits(), i)
	defer func() { n.naming.lookAt(s.owners) }()
	if i >= n.layout.Slots() && s.bad == nil {
		s.owners, s.bad = nil, fmt.Errorf("slot %d: not in the network", i)
	}
}

// reread reads the slots that were seen before the layout was known.
func (n *network) reread() {
	for i, s := range n.slots {
		if s.unread != nil {
			k := *s.unread
			s.unread = nil
			n.read(s, s.seen, k, i)
		}
	}
}

// keep takes the state of a key that it had at a revision, unless a newer one is
// known.
func keep(all map[string]kv, name string, k kv, at int64) {
	switch had := all[name]; {
	case k.rev == 0 && at > had.rev:
		delete(all, name)
	case k.rev == 0:
	case k.rev > had.rev:
		all[name] = k
	}
}
