package portmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
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

// inElements is the backend of nftables: elements of maps and sets in tables of
// the suite's own.
type inElements struct{ *job }

// expiryTries is how often publishing starts over where an element of a port's
// last owner is in the way, or vanishes: it expires within a millisecond, and a
// try takes about a third of one.
const expiryTries = 20

func (j inElements) add(ctx context.Context, c *nft.Conn) (err error) {
	for range expiryTries {
		err = c.Update(ctx, "publish ports of "+j.key.ContainerID, func(tx *nft.Tx) error { return j.addElements(c, tx) })
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return err
}

func (j inElements) restore(ctx context.Context, c *nft.Conn) error { return j.add(ctx, c) }

// Maps refuse among themselves what another container has.
func (inElements) readsRecords(c *nft.Conn) (bool, error) { return anyChains(c) }

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

// remove removes the attachment's elements, and what its network or the
// whole host no longer needs. Single ports of a network that goes on expire,
// where the kernel can do that: to delete them would take it many times as long.
func (j inElements) remove(ctx context.Context, c *nft.Conn) error {
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

// compare looks for the rules of each group of ports, and for each element.
func (j inElements) compare(_ context.Context, c *nft.Conn) error {
	return j.each(func(g group, target netip.Prefix) error {
		have, err := c.Ruleset(g.table)
		if err != nil {
			return err
		}
		missing, err := j.lacks(have, g, target)
		if err != nil {
			return err
		}
		if missing != nil {
			return cnierr.Check("published ports: %s is missing in %s (netcleat reconcile restores it)", missing, g.table)
		}
		for _, p := range j.elements(g, target.Addr()) {
			if err := j.checkElements(c, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkElements looks for each element with this container as its target or, as
// its other networks may have come first, as its owner.
func (j *job) checkElements(c *nft.Conn, p placed) error {
	elems := slices.DeleteFunc(slices.Clone(p.elems), func(e nft.Elem) bool { return e.End })
	var keys [][]byte
	for _, e := range elems {
		keys = append(keys, e.Key)
	}
	found, err := c.Find(p.set, keys...)
	if err != nil {
		return err
	}
	mine := 0
	for _, e := range found {
		i := slices.IndexFunc(elems, func(w nft.Elem) bool { return bytes.Equal(w.Key, e.Key) })
		asMade := e.Comment != j.owner() || i >= 0 && bytes.Equal(e.Data, elems[i].Data)
		if !e.Expires && asMade && ownerOf(e.Comment).is(j.key.ContainerID) {
			mine++
		}
	}
	if mine < len(elems) {
		return cnierr.Check("published ports: %d of %d are missing in map %s of %s (netcleat reconcile restores them)", len(elems)-mine, len(elems), p.set.Name, p.set.Table)
	}
	return nil
}
