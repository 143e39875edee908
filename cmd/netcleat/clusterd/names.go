package clusterd

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/names"
	"github.com/netcleat/netcleat/pkg/ranges"
	"github.com/netcleat/netcleat/pkg/slot"
)

// namer is the names of this host's containers, and where its dns daemon finds those of
// others.
type namer interface {
	// all returns this host's attachments to a network, by ID, and one of them.
	all(network string) (map[string]names.Local, error)
	one(network, id string) (l names.Local, ok bool)
	// hosts are those whose names were written, by this daemon or an earlier one.
	hosts(network string) []string
	// write replaces the names that another host has on a network.
	write(network, host string, all []names.Attachment) error
	// wantLease has the daemon's method leased called, now or later.
	wantLease()
}

// keyOfName is a key below names/: names/NET/HOST/ID.
type keyOfName struct{ net, host, id string }

func (k keyOfName) String() string { return nameKeys + k.net + "/" + k.host + "/" + k.id }

func nameKey(key string) (k keyOfName, ok bool) {
	if key, ok = strings.CutPrefix(key, nameKeys); !ok {
		return k, false
	}
	f := strings.SplitN(key, "/", 3)
	if len(f) != 3 || !isNetwork(f[0]) || !slot.IsHost(f[1]) || !names.IsID(f[2]) {
		return k, false
	}
	return keyOfName{f[0], f[1], f[2]}, true
}

// naming is what the daemon knows of the names on an overlay network.
type naming struct {
	keys map[string]map[string]kv // as etcd has them, by host and ID

	// This host's.
	own      map[string]ownName // by ID
	read     bool               // own is as the records say
	told     bool               // so is etcd
	marks    map[string]mark    // of what was written
	busy     map[string]bool    // being written
	pausedTo int                // the tick before which nothing is tried again

	// Those of others.
	stale   map[string]bool // hosts whose names are to be written for the dns daemon
	swept   bool            // so is what an earlier daemon has written
	absent  bool            // this host has no uplink of the network
	writeTo int             // the tick before which nothing is tried again
	said    string          // the last error that was logged
}

// ownName is an attachment of this host, and what others are told of it.
type ownName struct {
	names.Local
	text string
}

// mark is with which lease a key was written, and its revision.
type mark struct{ rev, lease int64 }

func newNaming() naming {
	return naming{keys: map[string]map[string]kv{}, marks: map[string]mark{}, busy: map[string]bool{}, stale: map[string]bool{}}
}

// startOver forgets what was asked for in a session that has ended, and has all names
// looked at again.
func (x *naming) startOver() {
	clear(x.busy)
	x.told, x.swept, x.pausedTo = false, false, 0
}

// list are the keys.
func (x *naming) list(network string) (all []string) {
	for host, ids := range x.keys {
		for id := range ids {
			all = append(all, keyOfName{network, host, id}.String())
		}
	}
	return all
}

func (x *naming) learn(of keyOfName, k kv, at int64) {
	if x.keys[of.host] == nil {
		x.keys[of.host] = map[string]kv{}
	}
	if keep(x.keys[of.host], of.id, k, at); len(x.keys[of.host]) == 0 {
		delete(x.keys, of.host)
	}
	x.stale[of.host], x.told = true, false
}

// lookAt has the names of hosts looked at again that own something of a slot, or did.
func (x *naming) lookAt(owners slot.Owners) {
	for host := range owners {
		if x.keys[host] != nil {
			x.stale[host] = true
		}
	}
}

// exchange tells the others of this host's names, and its dns daemon of theirs. Nothing
// waits for it.
func (d *daemon) exchange(n *network) {
	if d.namer == nil || d.state != running || n.conf == nil || n.conf.Overlay == nil || n.layout == nil || n.layout.String() != n.conf.Layout.String() {
		return
	}
	d.announce(n)
	d.hear(n)
}

// maxBusy bounds how many names of a network are being written.
const maxBusy = 64

// announce makes etcd have the names of this host's containers, and no others of it.
func (d *daemon) announce(n *network) {
	x := &n.naming
	if !x.read {
		d.readNames(n)
	}
	if x.told || d.ticks < x.pausedTo {
		return
	}
	x.told = true
	want := x.wanted()
	if x.absent {
		want = nil // the network of that name is no longer the cluster's here
	}
	for id, text := range want {
		if have := x.keys[d.host][id]; have.value != text || x.marks[id] != (mark{have.rev, d.lease}) {
			d.tellName(n, id, text)
		}
	}
	for id := range x.keys[d.host] {
		if want[id] == "" {
			d.tellName(n, id, "")
		}
	}
}

// readNames reads this host's records.
func (d *daemon) readNames(n *network) {
	x := &n.naming
	all, err := d.namer.all(n.name)
	if err != nil {
		d.sayName(n, err)
		return // the next tick tries again
	}
	x.own, x.read, x.told = map[string]ownName{}, true, false
	for id, l := range all {
		d.ownName(n, id, l)
	}
}

func (d *daemon) ownName(n *network, id string, l names.Local) {
	text, err := l.Text()
	if err != nil {
		d.sayName(n, fmt.Errorf("%s: %w", id, err))
		return
	}
	n.naming.own[id] = ownName{l, text}
}

// wanted is what etcd is to have. Of several attachments with one address the last has
// it: the others ended without a DEL.
func (x *naming) wanted() map[string]string {
	has := map[netip.Addr]string{}
	for id, o := range x.own {
		for _, a := range o.Addrs {
			if had, taken := has[a]; !taken || x.own[had].Created.Before(o.Created) {
				has[a] = id
			}
		}
	}
	want := map[string]string{}
	for _, id := range has {
		if len(want) < names.MaxAttachments {
			want[id] = x.own[id].text
		}
	}
	return want
}

// tellName writes a name, or removes it.
func (d *daemon) tellName(n *network, id, text string) {
	x, of := &n.naming, keyOfName{n.name, d.host, id}
	lease := d.lease
	switch {
	case x.busy[id]:
		return // its answer has everything looked at again
	case text == "":
		lease = 0
	case lease == 0:
		d.namer.wantLease()
		return
	}
	if len(x.busy) >= maxBusy {
		return // likewise
	}
	x.busy[id] = true
	t := txn{compare: compare{of.String(), x.keys[d.host][id].rev}, value: text, lease: lease}
	d.send(t, func(a answer) {
		delete(x.busy, id)
		delete(x.marks, id)
		x.told = false
		d.dirty[n.name] = true
		now := kv{t.key, text, a.rev}
		switch {
		case a.err != nil:
			x.pausedTo = d.ticks + backoff
			return
		case !a.ok:
			now = a.key()
		case text == "":
			now.rev = 0
		default:
			x.marks[id] = mark{a.rev, lease}
		}
		x.learn(of, now, a.rev)
	})
}

// leased is called with a lease for this host's names, and with 0 where it may have
// expired.
func (d *daemon) leased(id int64) {
	d.lease = id
	for name, n := range d.nets {
		n.naming.told = false
		d.dirty[name] = true
	}
	d.work()
}

// namesUnknown has all records of this host read again.
func (d *daemon) namesUnknown() {
	for name, n := range d.nets {
		n.naming.read = false
		d.dirty[name] = true
	}
	d.work()
}

// named reports whether a container of this host has names that others are told.
func (d *daemon) named() bool {
	for _, n := range d.nets {
		if len(n.naming.own) > 0 {
			return true
		}
	}
	return false
}

// nameChanged has one record read again.
func (d *daemon) nameChanged(network, id string) {
	n := d.nets[network]
	if n == nil || !n.naming.read || !names.IsID(id) {
		return // all are read later, or none
	}
	delete(n.naming.own, id)
	if l, ok := d.namer.one(network, id); ok {
		d.ownName(n, id, l)
	}
	n.naming.told = false
	d.dirty[network] = true
	d.work()
}

// hear writes the names of other hosts' containers for the dns daemon. While no block
// changes hands, as after etcd was reset, they are what they were.
func (d *daemon) hear(n *network) {
	x := &n.naming
	if d.stopped != "" || d.memory.Adopting || d.ticks < x.writeTo || !x.absent && !n.uplink.here.IsValid() {
		return
	}
	if !x.swept || x.absent {
		for _, host := range d.namer.hosts(n.name) {
			x.stale[host] = true
		}
		for host := range x.keys {
			x.stale[host] = true
		}
	}
	x.swept = !x.absent // what is removed now is to be written with the uplink
	for host := range x.stale {
		if err := d.writeNames(n, host); err != nil {
			d.sayName(n, err)
			x.writeTo = d.ticks + backoff
			continue // the names of other hosts do not wait for it
		}
		delete(x.stale, host)
	}
}

func (d *daemon) writeNames(n *network, host string) error {
	if host == d.host {
		return nil
	}
	var all []names.Attachment
	if !n.naming.absent {
		all = d.namesOf(n, host)
	}
	return d.namer.write(n.name, host, all)
}

// namesOf are the names that another host may have: at addresses of its own blocks. Of
// several with one address the one that was written last counts.
func (d *daemon) namesOf(n *network, host string) (all []names.Attachment) {
	keys := slices.SortedFunc(maps.Values(n.naming.keys[host]), func(a, b kv) int { return int(b.rev - a.rev) })
	taken := map[netip.Addr]bool{}
	unreadable := 0
	for _, k := range keys[:min(len(keys), 2*names.MaxAttachments)] {
		a, err := names.Parse(k.value)
		if err != nil {
			unreadable++
			continue
		}
		a.Addrs = slices.DeleteFunc(a.Addrs, func(ip netip.Addr) bool { return taken[ip] || !n.has(host, ip) })
		for _, ip := range a.Addrs {
			taken[ip] = true
		}
		if len(a.Addrs) > 0 && len(all) < names.MaxAttachments {
			all = append(all, a)
		}
	}
	if unreadable > 0 {
		d.sayName(n, fmt.Errorf("host %s: %d attachments cannot be read", host, unreadable))
	}
	slices.SortFunc(all, func(a, b names.Attachment) int { return a.Addrs[0].Compare(b.Addrs[0]) })
	return all
}

// has reports whether a container of the host can have an address of the network.
func (n *network) has(host string, ip netip.Addr) bool {
	p, ok := n.conf.Find(ip)
	if s := n.slots[p.Slot]; !ok || s == nil || s.bad != nil || !s.owners[host].Contain(p) {
		return false
	}
	for _, set := range n.conf.Sets {
		if slices.ContainsFunc(set.Ranges(), func(r ranges.Range) bool { return r.Gateway == ip }) {
			return false
		}
	}
	return true
}

func (d *daemon) sayName(n *network, err error) {
	if text := err.Error(); n.naming.said != text {
		n.naming.said = text
		d.log.Printf("network %s: names: %s", n.name, text)
	}
}
