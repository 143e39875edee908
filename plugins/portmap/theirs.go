package portmap

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
)

// theirChains are where the reference's nftables backend has its rules, with the
// container's ID as their comment: one for each port, and those that masquerade.
// Earlier versions had ports of single addresses in a chain of their own.
var theirChains = []string{hostports, "hostip_hostports", "masquerading"}

// theirMapping reads a rule of the reference's that maps a port. All that such a rule
// compares differs in its length: the protocol, the port, and the host's address.
func theirMapping(r nft.RuleInfo) (m mapping, is bool) {
	if r.Target != "" || r.Comment == "" || len(r.Loads) == 0 {
		return m, false
	}
	m.Count = 1
	for _, v := range r.Values {
		switch len(v) {
		case 1:
			m.Proto = proto(v[0])
		case 2:
			m.Host = binary.BigEndian.Uint16(v)
		default:
			m.HostIP, _ = netip.AddrFromSlice(v) // what is no address matches nothing here
		}
	}
	return m, slices.Contains(protos, m.Proto) && m.Host != 0
}

func ownerOfRule(r nft.RuleInfo) owner { return owner{id: journal.Cut(r.Comment, idRoom)} }

// clearTheirs looks for the reference's rules in the way of the attachment's ports. A
// packet meets them first. Those of owners that are dead are removed by tx, unless it
// is nil; of others they are an error.
func (j *job) clearTheirs(have nft.Ruleset, tx *nft.Tx, l layout) error {
	mappings := j.pick(l.v6)
	for _, name := range theirChains {
		for _, r := range have[name] {
			theirs, is := theirMapping(r)
			o := ownerOfRule(r)
			i := slices.IndexFunc(mappings, theirs.overlaps)
			if !is || i < 0 || o.is(j.key.ContainerID) {
				continue
			}
			if !j.replace {
				if err := j.conflict(mappings[i], o); err != nil {
					return err
				}
			}
			if tx != nil {
				tx.DeleteRule(l.chain(name), r.Handle)
			}
		}
	}
	return nil
}

// nativeConflict looks in nftables' tables for other containers that publish one of
// the ports which iptables is to publish: by the reference's rules, or by elements of
// this suite's whose record is lost. nftables itself does as it publishes.
func (j *job) nativeConflict(c *nft.Conn) error {
	if !j.byIPTables() || !c.Available() {
		return nil
	}
	for _, v6 := range []bool{false, true} {
		l := layoutOf(v6)
		if !j.publishes(v6) {
			continue
		}
		have, err := c.Ruleset(l.table)
		if err != nil {
			return err
		}
		if len(have) == 0 { // most hosts have no such table
			continue
		}
		if err := j.clearTheirs(have, nil, l); err != nil {
			return err
		}
		if err := j.elementConflict(c, l); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) elementConflict(c *nft.Conn, l layout) error {
	return l.eachMap(c, func(set nft.Set, elems []nft.Elem) error {
		for _, m := range j.pick(l.v6) {
			for _, h := range overlapping(set, elems, m) {
				if _, err := j.judge(h); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
