package masq

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
)

// A rule of a whole prefix has exceptions: containers with an address there that are
// attached with ipMasq off, to the same network or to another one on the same bridge.

// exemptsOf holds the addresses that a network's rules do not masquerade.
func exemptsOf(hash string, v6 bool) nft.Set {
	if v6 {
		return nft.Set{Table: table, Name: "exempt6_" + hash, Key: []nft.Type{nft.TypeIPv6}}
	}
	return nft.Set{Table: table, Name: "exempt4_" + hash, Key: []nft.Type{nft.TypeIPv4}}
}

// exception is the rule that looks for a network's exempt addresses.
func exception(hash string, v6 bool) nft.Rule {
	e := nft.Join(nft.Proto(v6), []nft.Expr{nft.LoadAddr(v6, nft.Source, 0), nft.InSet(exemptsOf(hash, v6).Name, 0), nft.Decide(nft.Return)})
	return nft.Rule{Chain: chainOf(hash), Exprs: e, Comment: "attached with ipMasq off"}
}

// Exempt keeps an attachment with ipMasq off from being masqueraded by the rules of
// networks that stand for its address, its own and others. undo takes that back; Del
// does, too.
func Exempt(ctx context.Context, a Attachment) (undo func() error, err error) {
	a.off = true
	undo = func() error { return nil }
	c, err := nft.Look(ctx)
	if err != nil {
		return undo, nil // without nf_tables there is no such rule
	}
	if !c.Available() {
		return undo, c.Close()
	}
	undo = func() error { return Del(context.WithoutCancel(ctx), a) } // also where exemptLate comes first
	have, err := c.Ruleset(table)
	covered := slices.ContainsFunc(a.Addrs, func(p netip.Prefix) bool { return len(covering(have, p.Addr())) > 0 })
	if err = errors.Join(err, c.Close()); err != nil || !covered {
		return undo, err
	}
	return undo, a.locked(ctx, func(c *nft.Conn) error {
		return c.Update(ctx, "exempt from masquerading", func(tx *nft.Tx) error {
			have, err := c.Ruleset(table) // the last that needed a rule may have gone meanwhile
			for _, p := range a.Addrs {
				for _, hash := range covering(have, p.Addr()) {
					err = errors.Join(err, a.exempt(c, tx, have, at{hash, p.Addr()}))
				}
			}
			return err
		})
	})
}

// CheckExempt compares the kernel's rules with what Exempt makes.
func CheckExempt(ctx context.Context, a Attachment) (err error) {
	c, err := nft.Look(ctx)
	if err != nil {
		return nil // without nf_tables there is no such rule
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	have, err := c.Ruleset(table)
	if err != nil {
		return ignoreMissing(err)
	}
	for _, p := range a.Addrs {
		for _, hash := range covering(have, p.Addr()) {
			exempt, err := a.isExempt(c, have, at{hash, p.Addr()})
			if err != nil {
				return err
			}
			if !exempt {
				return cnierr.Check("%s is not exempt from masquerading in %s (netcleat reconcile restores it)", p, table)
			}
		}
	}
	return nil
}

// covering returns the networks with a rule for a whole prefix that the address is in.
func covering(have nft.Ruleset, ip netip.Addr) (hashes []string) {
	for name, rules := range have {
		hash, is := strings.CutPrefix(name, networkChain)
		if is && slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return prefixOf(r).Contains(ip) }) {
			hashes = append(hashes, hash)
		}
	}
	slices.Sort(hashes)
	return hashes
}

// prefixOf returns the prefix that a rule masquerades, by its comment. A single
// address is its container's alone.
func prefixOf(r nft.RuleInfo) netip.Prefix {
	source, _, _ := strings.Cut(r.Comment, " of ")
	p, err := netip.ParsePrefix(source)
	if err != nil || p.IsSingleIP() {
		return netip.Prefix{}
	}
	return p
}

// at is an address in the exceptions of a network.
type at struct {
	hash string
	ip   netip.Addr
}

func (x at) set() nft.Set { return exemptsOf(x.hash, x.ip.Is6()) }

func (x at) exception() nft.Rule { return exception(x.hash, x.ip.Is6()) }

// note is the comment of a's exemptions.
func (a Attachment) note() string { return journal.Cut(a.ContainerID, 120) }

// exempt adds an address to the exceptions of a network, and makes those where there
// are none yet.
func (a Attachment) exempt(c *nft.Conn, tx *nft.Tx, have nft.Ruleset, x at) error {
	exempt, err := a.isExempt(c, have, x)
	if err != nil || exempt {
		return err
	}
	tx.EnsureSet(x.set())
	tx.EnsureFirst(have, x.exception())
	tx.Add(x.set(), nft.Elem{Key: x.ip.AsSlice(), Comment: a.note()})
	return nil
}

// isExempt reports whether the address is in the network's exceptions, and a rule
// looks there.
func (a Attachment) isExempt(c *nft.Conn, have nft.Ruleset, x at) (bool, error) {
	if have.Lacks(x.exception()) != nil {
		return false, nil
	}
	found, err := c.Find(x.set(), x.ip.AsSlice())
	return len(found) > 0 && found[0].Comment == a.note(), err
}

// unmasqueraded returns the records of attachments of any network that have ipMasq
// off, and an address in one of a's prefixes.
func (a Attachment) unmasqueraded() (off []journal.Record, err error) {
	if !slices.ContainsFunc(a.Addrs, func(p netip.Prefix) bool { return !a.source(p).IsSingleIP() }) {
		return nil, nil
	}
	names, err := a.Journal.Networks()
	for _, n := range names {
		if err != nil {
			break
		}
		var records []journal.Record
		records, err = a.others(n, func(r journal.Record) bool {
			return !confOf(r).IPMasq && slices.ContainsFunc(r.IPs, func(p netip.Prefix) bool { return a.covers(p.Addr()) })
		})
		off = append(off, records...)
	}
	return off, err
}

// covers reports whether one of a's prefixes has the address.
func (a Attachment) covers(ip netip.Addr) bool {
	return slices.ContainsFunc(a.Addrs, func(p netip.Prefix) bool {
		source := a.source(p)
		return !source.IsSingleIP() && source.Contains(ip)
	})
}

// exemptLate exempts those who were attached with ipMasq off while the first rules
// for their addresses were made: Exempt saw no rule yet, and addRules not their record.
func (a Attachment) exemptLate(ctx context.Context, c *nft.Conn) error {
	off, err := a.unmasqueraded()
	if err != nil || len(off) == 0 {
		return err
	}
	return c.Update(ctx, "exempt from masquerading", func(tx *nft.Tx) error {
		have, err := c.Ruleset(table)
		if err != nil {
			return err
		}
		return a.exemptAll(c, tx, have, off)
	})
}

// exemptAll exempts the records' addresses in a's prefixes from the rules of a's
// network.
func (a Attachment) exemptAll(c *nft.Conn, tx *nft.Tx, have nft.Ruleset, off []journal.Record) error {
	for _, r := range off {
		other := Attachment{ContainerID: r.ContainerID}
		for _, p := range r.IPs {
			if !a.covers(p.Addr()) {
				continue
			}
			if err := other.exempt(c, tx, have, at{a.hash(), p.Addr()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// unexempt takes a's addresses from the exceptions of a network.
func (a Attachment) unexempt(c *nft.Conn, tx *nft.Tx, hash string) error {
	for _, p := range a.Addrs {
		set := exemptsOf(hash, p.Addr().Is6())
		found, err := c.Find(set, p.Addr().AsSlice())
		if err != nil {
			return err
		}
		for _, e := range found {
			if e.Comment == a.note() {
				tx.Remove(set, nft.Elem{Key: e.Key})
			}
		}
	}
	return nil
}

// unexemptElsewhere takes the addresses of one with ipMasq off from the exceptions of
// other networks, which the rules lead to.
func (a Attachment) unexemptElsewhere(c *nft.Conn, tx *nft.Tx, rules []nft.RuleInfo) error {
	if !a.off {
		return nil
	}
	for _, r := range rules {
		hash, is := strings.CutPrefix(r.Target, networkChain)
		if !is || hash == a.hash() {
			continue
		}
		if err := a.unexempt(c, tx, hash); err != nil {
			return err
		}
	}
	return nil
}

// exemption is an element of a set of exceptions.
type exemption struct {
	set nft.Set
	key []byte
}

// staleExemptions returns what exempts a's addresses from the rules of its network: a
// container that had one of them before, with ipMasq off, has left it.
func (a Attachment) staleExemptions(c *nft.Conn, have nft.Ruleset) (list []exemption, err error) {
	for _, p := range a.Addrs {
		x := at{a.hash(), p.Addr()}
		if have.Lacks(x.exception()) != nil {
			continue
		}
		found, err := c.Find(x.set(), x.ip.AsSlice())
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			list = append(list, exemption{x.set(), x.ip.AsSlice()})
		}
	}
	return list, nil
}

// dropStale removes what exempts a's addresses.
func (a Attachment) dropStale(c *nft.Conn, tx *nft.Tx, have nft.Ruleset) error {
	stale, err := a.staleExemptions(c, have)
	for _, e := range stale {
		tx.Remove(e.set, nft.Elem{Key: e.key})
	}
	return err
}
