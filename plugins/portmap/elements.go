package portmap

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
)

func be16(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

// placed is elements of one set.
type placed struct {
	set   nft.Set
	elems []nft.Elem
	m     mapping // the one that they come from, for messages
}

// place turns a mapping into elements.
func (g group) place(m mapping, target netip.Addr, comment string) placed {
	data := nft.Parts(target.AsSlice(), be16(m.Container))
	switch {
	case m.Count > 1:
		elems := []nft.Elem{{Key: be16(m.Host), Data: target.AsSlice(), Comment: comment}}
		if m.last() < maxPort {
			elems = append(elems, nft.Elem{Key: be16(m.last() + 1), End: true})
		}
		return placed{g.ranges(m.Proto), elems, m}
	case m.HostIP.IsValid():
		key := nft.Parts(m.HostIP.AsSlice(), []byte{byte(m.Proto)}, be16(m.Host))
		return placed{g.ports(), []nft.Elem{{Key: key, Data: data, Comment: comment}}, m}
	default:
		return placed{g.anywhere(), []nft.Elem{{Key: anyKey(m.Proto, m.Host), Data: data, Comment: comment}}, m}
	}
}

func anyKey(p proto, port uint16) []byte { return nft.Parts([]byte{byte(p)}, be16(port)) }

// each calls fn with the group and target of each of the container's families.
func (j *job) each(fn func(g group, target netip.Prefix) error) error {
	for _, t := range j.Targets {
		v6 := t.Addr().Is6()
		if len(j.pick(v6)) == 0 {
			continue
		}
		if err := fn(layoutOf(v6).group(j.conditions(v6)), t); err != nil {
			return err
		}
	}
	return nil
}

// elements returns the attachment's elements of one group, those of one set
// together.
func (j *job) elements(g group, target netip.Addr) (all []placed) {
	at := map[string]int{}
	for _, m := range j.pick(g.v6) {
		p := g.place(m, target, j.owner())
		i, known := at[p.set.Name]
		if !known {
			i = len(all)
			at[p.set.Name] = i
			all = append(all, placed{set: p.set})
		}
		all[i].elems = append(all[i].elems, p.elems...)
	}
	return all
}

// addElements publishes in the tables of the container's families.
func (j *job) addElements(c *nft.Conn, tx *nft.Tx) error {
	return j.each(func(g group, target netip.Prefix) error {
		have, err := c.Ruleset(g.table)
		if err != nil {
			return err
		}
		g.ensureTable(have, tx)
		if err := g.ensure(have, tx); err != nil {
			return err
		}
		j.ensureNetwork(have, tx, g.layout, target)
		if err := j.clearTheirs(have, tx, g.layout); err != nil {
			return err
		}
		skip, err := j.clearWay(c, tx, g)
		if err != nil {
			return err
		}
		for _, p := range j.elements(g, target.Addr()) {
			p.elems = slices.DeleteFunc(p.elems, func(e nft.Elem) bool { return skip[p.set.Name+string(e.Key)] })
			tx.AddNew(p.set, p.elems...)
		}
		return nil
	})
}

// clearWay looks for elements in the way of the attachment's. Those of owners
// that are dead, and its own, it removes. What another network of the same
// container has published stays, and is to be skipped.
func (j *job) clearWay(c *nft.Conn, tx *nft.Tx, g group) (skip map[string]bool, err error) {
	skip = map[string]bool{}
	removed := map[string]bool{}
	mappings := j.pick(g.v6)
	b := &book{group: g, c: c, read: map[string][]nft.Elem{}, at: map[string]map[string][]nft.Elem{}, many: len(mappings) > manyPorts}
	for _, m := range mappings {
		hits, err := b.hits(m)
		if err != nil {
			return nil, err
		}
		for _, h := range hits {
			key := h.set.Name + string(h.elems[0].Key)
			if removed[key] || skip[key] {
				continue
			}
			keep, err := j.judge(h)
			if err != nil {
				return nil, err
			}
			if keep {
				skip[key] = true
				continue
			}
			removed[key] = true
			tx.Remove(h.set, h.elems...)
		}
	}
	return skip, nil
}

// manyPorts is from how many mappings on all of a map is read instead of one
// element after the other.
const manyPorts = 128

// book is what a group's maps have, as far as it has been asked for.
type book struct {
	group
	c    *nft.Conn
	read map[string][]nft.Elem            // whole maps
	at   map[string]map[string][]nft.Elem // those by protocol and port
	many bool
}

// all returns all elements of a map, which is read once.
func (b *book) all(set nft.Set) ([]nft.Elem, error) {
	if elems, known := b.read[set.Name]; known {
		return elems, nil
	}
	elems, err := b.c.Elements(set)
	b.read[set.Name] = elems
	return elems, err
}

// portOf is the end of a single port's key: protocol and port, four bytes each.
func portOf(key []byte) []byte { return key[len(key)-8:] }

// candidates returns the elements of a map of single ports that have the
// mapping's port.
func (b *book) candidates(set nft.Set, m mapping) ([]nft.Elem, error) {
	if index, known := b.at[set.Name]; known {
		return index[string(anyKey(m.Proto, m.Host))], nil
	}
	elems, err := b.all(set)
	if err != nil {
		return nil, err
	}
	index := make(map[string][]nft.Elem, len(elems))
	for _, e := range elems {
		port := string(portOf(e.Key))
		index[port] = append(index[port], e)
	}
	b.at[set.Name] = index
	return index[string(anyKey(m.Proto, m.Host))], nil
}

// hits returns the elements whose address, protocol and ports overlap those of
// the mapping.
func (b *book) hits(m mapping) (list []placed, err error) {
	for _, set := range []nft.Set{b.ports(), b.anywhere(), b.ranges(m.Proto)} {
		found, err := b.in(set, m)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	return list, nil
}

// in returns the elements of one map that overlap.
func (b *book) in(set nft.Set, m mapping) ([]placed, error) {
	key := b.key(set, m)
	if b.many && !set.Interval && m.Count == 1 {
		elems, err := b.candidates(set, m)
		return overlapping(set, elems, m), err
	}
	if key == nil || b.many {
		elems, err := b.all(set)
		return overlapping(set, elems, m), err
	}
	found, err := b.c.Find(set, key)
	if err != nil || len(found) == 0 || !set.Interval {
		return overlapping(set, found, m), err
	}
	elems, err := b.all(set) // for the range's end
	return overlapping(set, elems, m), err
}

// key is the only key of the map that can be in the mapping's way, or nil where
// several can.
func (b *book) key(set nft.Set, m mapping) []byte {
	switch {
	case m.Count > 1:
		return nil
	case set.Interval:
		return be16(m.Host)
	case set.Name == b.anywhere().Name:
		return anyKey(m.Proto, m.Host)
	case m.HostIP.IsValid():
		return nft.Parts(m.HostIP.AsSlice(), []byte{byte(m.Proto)}, be16(m.Host))
	}
	return nil
}

// overlapping picks those of a map's elements that are in the mapping's way.
func overlapping(set nft.Set, elems []nft.Elem, m mapping) (list []placed) {
	if set.Interval {
		for _, r := range intervals(elems) {
			if r.first <= m.last() && m.Host <= r.last {
				list = append(list, placed{set, r.elems, m})
			}
		}
		return list
	}
	for _, e := range elems {
		if e.Expires {
			continue // it is as good as gone
		}
		tail := portOf(e.Key)
		port := binary.BigEndian.Uint16(tail[4:])
		elsewhere := m.HostIP.IsValid() && len(e.Key) > 8 && !slices.Equal(m.HostIP.AsSlice(), e.Key[:len(e.Key)-8])
		if tail[0] == byte(m.Proto) && m.Host <= port && port <= m.last() && !elsewhere {
			list = append(list, placed{set, []nft.Elem{{Key: e.Key, Comment: e.Comment}}, m})
		}
	}
	return list
}

type interval struct {
	first, last uint16
	elems       []nft.Elem
}

// intervals puts the elements of an interval set together. The kernel lists
// beginnings and ends as it holds them, in no useful order.
func intervals(elems []nft.Elem) (all []interval) {
	slices.SortStableFunc(elems, func(a, b nft.Elem) int {
		pa, pb := binary.BigEndian.Uint16(a.Key), binary.BigEndian.Uint16(b.Key)
		switch {
		case pa != pb:
			return int(pa) - int(pb)
		case a.End && !b.End:
			return -1
		case b.End && !a.End:
			return 1
		}
		return 0
	})
	for i, e := range elems {
		if e.End {
			continue
		}
		r := interval{binary.BigEndian.Uint16(e.Key), maxPort, []nft.Elem{{Key: e.Key, Comment: e.Comment}}}
		if i+1 < len(elems) && elems[i+1].End {
			r.last = binary.BigEndian.Uint16(elems[i+1].Key) - 1
			r.elems = append(r.elems, nft.Elem{Key: elems[i+1].Key, End: true})
		}
		all = append(all, r)
	}
	return all
}

// judge says what to do about an element in the way: keep it and do without, or
// remove it. Another live container's is an error.
func (j *job) judge(h placed) (keep bool, err error) {
	comment := h.elems[0].Comment
	if comment == j.owner() {
		return false, nil
	}
	o := ownerOf(comment)
	if o.is(j.key.ContainerID) {
		return true, nil
	}
	if j.replace {
		return false, nil
	}
	return false, j.conflict(h.m, o)
}

// delElements removes the attachment's elements, and what its network or the
// whole host no longer needs. Single ports of a network that goes on expire,
// where the kernel can do that: to delete them would take it many times as long.
func (j *job) delElements(ctx context.Context, c *nft.Conn) error {
	err := j.unpublishBy(ctx, c, j.expireOwn)
	if err == nil || errors.Is(err, unix.EINVAL) { // EINVAL: the map's elements cannot expire
		err = j.unpublishBy(ctx, c, j.delOwn) // those that the kernel has not let expire
	}
	if nft.Missing(err) {
		return nil
	}
	return err
}

// unpublishBy has del remove each place's elements, and then what the network no
// longer needs: of both families, whichever this attachment published in.
func (j *job) unpublishBy(ctx context.Context, c *nft.Conn, del func(*nft.Conn, *nft.Tx, placed) error) error {
	return c.Update(ctx, "unpublish ports of "+j.key.ContainerID, func(tx *nft.Tx) error {
		needed, err := j.networkNeeded()
		if err != nil {
			return err
		}
		places := map[bool]func() error{}
		err = j.each(func(g group, target netip.Prefix) error {
			places[g.v6] = func() error {
				for _, p := range j.elements(g, target.Addr()) {
					if err := del(c, tx, p); err != nil {
						return err
					}
				}
				return j.delSingles(c, tx, g.layout)
			}
			if needed {
				return places[g.v6]()
			}
			return nil
		})
		if err != nil || needed {
			return err
		}
		return errors.Join(j.delNetwork(c, tx, layoutOf(false), places[false]), j.delNetwork(c, tx, layoutOf(true), places[true]))
	})
}

// own returns those of the elements that are there and still the attachment's.
func (j *job) own(c *nft.Conn, p placed) (own []nft.Elem, err error) {
	var keys [][]byte
	for _, e := range p.elems {
		keys = append(keys, e.Key)
	}
	found, err := c.Find(p.set, keys...)
	for _, e := range found {
		if e.Comment == j.owner() && !e.Expires {
			own = append(own, nft.Elem{Key: e.Key, Data: e.Data})
		}
	}
	return own, err
}

func (j *job) expireOwn(c *nft.Conn, tx *nft.Tx, p placed) error {
	if !p.set.Expiring {
		return j.delOwn(c, tx, p)
	}
	own, err := j.own(c, p)
	tx.Expire(p.set, own...)
	return err
}

func (j *job) delOwn(c *nft.Conn, tx *nft.Tx, p placed) error {
	if p.set.Interval {
		return j.delOwnRanges(c, tx, p.set)
	}
	own, err := j.own(c, p)
	for i := range own {
		own[i].Data = nil
	}
	tx.Remove(p.set, own...)
	return err
}

func (j *job) delOwnRanges(c *nft.Conn, tx *nft.Tx, set nft.Set) error {
	elems, err := c.Elements(set)
	if err != nil {
		return err
	}
	for _, r := range intervals(elems) {
		if r.elems[0].Comment == j.owner() {
			tx.Remove(set, r.elems...)
		}
	}
	return nil
}

// delNetwork removes the whole table of a family where no other network publishes
// in it; else it has elements, unless that is nil, remove the attachment's own, and
// removes the network's chain and the maps that hold nothing any more. No record
// speaks of others of the network: no element may either, for records can be lost.
func (j *job) delNetwork(c *nft.Conn, tx *nft.Tx, l layout, elements func() error) error {
	if elements == nil {
		elements = func() error { return nil }
	}
	there, err := c.HasTable(l.table)
	if nft.Missing(err) || err == nil && !there {
		return nil
	}
	if err != nil {
		return err
	}
	others, err := j.others(c, l)
	if err != nil {
		return err
	}
	if others.siblings {
		return elements()
	}
	have, err := c.Ruleset(l.table)
	if err != nil {
		return err
	}
	if !others.strangers && j.lastOf(have, l) {
		tx.DeleteTable(l.table)
		return nil
	}
	if err := elements(); err != nil {
		return err
	}
	chain := l.network(j.key.Network)
	if len(have[chain.Name]) > 0 || jumpsTo(have[networks], chain.Name) {
		if err := c.DropChain(tx, chain, l.chain(networks), nil); err != nil {
			return err
		}
	}
	return j.delGroups(c, tx, l, have)
}

func jumpsTo(rules []nft.RuleInfo, chain string) bool {
	return slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return r.Target == chain })
}

// others are who has elements beside those that are about to go.
type others struct {
	siblings  bool // of the same network
	strangers bool // of other networks
	nearby    bool // at addresses of the container's own subnet
}

// others looks at all elements of one family. It is for the last attachment of a
// network that has a record: with many elements it takes time.
func (j *job) others(c *nft.Conn, l layout) (found others, err error) {
	err = l.eachMap(c, func(_ nft.Set, elems []nft.Elem) error {
		for _, e := range elems {
			o := ownerOf(e.Comment)
			if e.Comment == "" || e.Expires || j.goes(o) {
				continue
			}
			if o.network == journal.Cut(j.key.Network, networkRoom) {
				found.siblings = true
			} else {
				found.strangers = true
			}
			found.nearby = found.nearby || j.isNear(e.Data)
		}
		return nil
	})
	return found, err
}

// goes reports whether an owner's elements are about to go: the attachment's own,
// or those that a GC names.
func (j *job) goes(o owner) bool {
	if j.stale != nil {
		return j.stale(o)
	}
	return o == ownerOf(j.owner())
}

// isNear reports whether the address that an element's data begins with is of one
// of the container's subnets, or of those of its bridge.
func (j *job) isNear(data []byte) bool {
	return slices.ContainsFunc(append(slices.Clone(j.Targets), j.near...), func(p netip.Prefix) bool {
		n := p.Addr().BitLen() / 8
		if len(data) < n {
			return false
		}
		a, ok := netip.AddrFromSlice(data[:n])
		return ok && p.Contains(a)
	})
}

// lastOf reports whether the table has no other network, and nothing of the
// reference's.
func (j *job) lastOf(have nft.Ruleset, l layout) bool {
	own := l.network(j.key.Network).Name
	return !foreign(have) && !slices.ContainsFunc(have[networks], func(r nft.RuleInfo) bool { return r.Target != own })
}

// foreign reports whether the table holds the reference's rules, too.
func foreign(have nft.Ruleset) bool {
	for _, name := range theirChains {
		if slices.ContainsFunc(have[name], func(r nft.RuleInfo) bool { return r.Target == "" && r.Comment != "" }) {
			return true
		}
	}
	return false
}

// delGroups removes the maps of conditions that hold nothing but the attachment's
// own: those of its network, and those of an earlier configuration.
func (j *job) delGroups(c *nft.Conn, tx *nft.Tx, l layout, have nft.Ruleset) error {
	for _, r := range have[hostports] {
		suffix, ok := strings.CutPrefix(r.Target, hostports+"_")
		if !ok {
			continue
		}
		if err := j.delGroup(c, tx, group{layout: l, suffix: "_" + suffix}); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) delGroup(c *nft.Conn, tx *nft.Tx, g group) error {
	for _, s := range g.sets() {
		elems, err := c.Elements(s)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(elems, func(e nft.Elem) bool { return e.Comment != "" && e.Comment != j.owner() }) {
			return nil
		}
	}
	if err := c.DropChain(tx, g.lookups(), g.chain(hostports), nil); err != nil {
		return err
	}
	for _, s := range g.sets() {
		tx.DeleteSet(s)
	}
	return nil
}
