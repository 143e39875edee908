package portmap

import (
	"encoding/binary"
	"slices"

	"github.com/netcleat/netcleat/pkg/nft"
)

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
