package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// Chain is a chain; Hook makes it a base chain.
type Chain struct {
	Table Table
	Name  string
	Hook  *Hook
}

// Hook is where the kernel calls a base chain.
type Hook struct {
	Type     string // "nat", "filter"
	Num      uint32 // unix.NF_INET_PRE_ROUTING …
	Priority int32
}

// EnsureTable adds a table unless it is there. The comment is its first maker's.
func (tx *Tx) EnsureTable(t Table, comment string) {
	there, err := tx.conn.HasTable(t)
	tx.err = errors.Join(tx.err, err)
	if there || err != nil || tx.new[t] {
		return
	}
	tx.new[t] = true
	m := tx.add(message("add "+t.String(), t.Family, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE))
	m.String(unix.NFTA_TABLE_NAME, t.Name)
	if comment != "" {
		m.Attr(tableUserData, comments(comment))
	}
}

const (
	tableUserData = 6  // NFTA_TABLE_USERDATA, since Linux 5.10
	chainUserData = 12 // NFTA_CHAIN_USERDATA, since Linux 5.10
)

// comments wraps a comment as nft(8) does: type 0, length, text, zero.
func comments(s string) []byte {
	if len(s) > maxComment-1 {
		s = s[:maxComment-1]
	}
	return append(append([]byte{0, uint8(len(s) + 1)}, s...), 0)
}

const maxComment = 128 // bytes that nft(8) takes in a comment, with the final zero

// comment reads what comments has wrapped.
func comment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == 0 {
			return text(b[2 : 2+int(b[1])])
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

// DeleteTable deletes a table with all that is in it.
func (tx *Tx) DeleteTable(t Table) {
	tx.add(message("delete "+t.String(), t.Family, unix.NFT_MSG_DELTABLE, 0)).String(unix.NFTA_TABLE_NAME, t.Name)
}

// chainName names a chain in the whole ruleset.
type chainName struct {
	table Table
	name  string
}

// EnsureChain adds a chain unless it is there. A base chain that is there must
// have the same hook.
//
// The kernel would take a chain that is there for one to be updated, and what
// updates a chain has the socket's close wait for an RCU grace period, as long
// as a deletion does: therefore the look.
func (tx *Tx) EnsureChain(c Chain) {
	if tx.has(c) {
		return
	}
	tx.seen[chainName{c.Table, c.Name}] = true
	m := tx.add(message("add chain "+c.Name, c.Table.Family, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE))
	m.String(unix.NFTA_CHAIN_TABLE, c.Table.Name).String(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Hook == nil {
		return
	}
	m.Begin(unix.NFTA_CHAIN_HOOK | unix.NLA_F_NESTED)
	m.Attr(unix.NFTA_HOOK_HOOKNUM, be32(c.Hook.Num)).Attr(unix.NFTA_HOOK_PRIORITY, be32(uint32(c.Hook.Priority)))
	m.End()
	m.Attr(unix.NFTA_CHAIN_POLICY, be32(uint32(Accept)))
	m.String(unix.NFTA_CHAIN_TYPE, c.Hook.Type)
}

// has reports whether the chain is there, or made by this transaction.
func (tx *Tx) has(c Chain) bool {
	if tx.seen[chainName{c.Table, c.Name}] {
		return true
	}
	if tx.new[c.Table] {
		return false
	}
	info, err := tx.conn.GetChain(c)
	if err == nil && info != nil && c.Hook != nil && (info.num != c.Hook.Num || info.priority != c.Hook.Priority) {
		err = fmt.Errorf("chain %s of %s: hooked into %d with priority %d, want %d and %d",
			c.Name, c.Table, info.num, info.priority, c.Hook.Num, c.Hook.Priority)
	}
	tx.err = errors.Join(tx.err, err)
	return info != nil
}

func chainMessage(what string, c Chain, typ uint16) *nl.Message {
	return message(what+" chain "+c.Name, c.Table.Family, typ, 0).String(unix.NFTA_CHAIN_TABLE, c.Table.Name).String(unix.NFTA_CHAIN_NAME, c.Name)
}

// DeleteChain deletes a chain that has no rules and that no rule names.
func (tx *Tx) DeleteChain(c Chain) { tx.add(chainMessage("delete", c, unix.NFT_MSG_DELCHAIN)) }

// FlushChain deletes all rules of a chain.
func (tx *Tx) FlushChain(c Chain) {
	m := message("flush chain "+c.Name, c.Table.Family, unix.NFT_MSG_DELRULE, 0)
	tx.add(m.String(unix.NFTA_RULE_TABLE, c.Table.Name).String(unix.NFTA_RULE_CHAIN, c.Name))
}

// ChainInfo is what the kernel says of a chain.
type ChainInfo struct {
	Name   string
	Hooked bool   // a base chain
	Drops  bool   // a base chain whose policy is drop
	Uses   uint32 // the rules in it, and those that jump to it

	num      uint32 // of a base chain
	priority int32
}

// maxName is how long the name of a chain can be, in bytes (NFT_NAME_MAXLEN
// without the final zero).
const maxName = 255

// GetChain returns a chain, or nil where there is none of that name.
func (c *Conn) GetChain(ch Chain) (info *ChainInfo, err error) {
	if len(ch.Name) > maxName {
		return nil, nil // the kernel would refuse to look for it
	}
	m := chainMessage("look up", ch, unix.NFT_MSG_GETCHAIN)
	m.Query, m.Ignore = true, []unix.Errno{unix.ENOENT}
	m.Reply = func(b []byte) error {
		i := parseChain(b)
		info = &i.ChainInfo
		return nil
	}
	return info, c.nl.Do(m)
}

// Chains returns the chains of a table.
func (c *Conn) Chains(t Table) (all []ChainInfo, err error) {
	m := query("list chains", t.Family, unix.NFT_MSG_GETCHAIN)
	m.Reply = func(b []byte) error {
		if i := parseChain(b); i.table == t.Name {
			all = append(all, i.ChainInfo)
		}
		return nil
	}
	return all, c.dump(m, func() { all = nil })
}

// BaseChain is a chain that the kernel calls.
type BaseChain struct {
	Chain
	Drops bool // its policy is drop
}

// BaseChains returns the filtering chains at a hook, of the tables of IPv4, of IPv6
// and of both (inet).
func (c *Conn) BaseChains(hook uint32) ([]BaseChain, error) {
	return list(c, hook, func() ([]BaseChain, error) { return c.baseChains(hook) })
}

func (c *Conn) baseChains(hook uint32) (all []BaseChain, err error) {
	m := query("list chains", unix.NFPROTO_UNSPEC, unix.NFT_MSG_GETCHAIN)
	m.Reply = func(b []byte) error {
		i := parseChain(b)
		if f := Family(b[0]); i.Hooked && i.num == hook && i.typ == "filter" && (f == IPv4 || f == IPv6 || f == Inet) {
			all = append(all, BaseChain{Chain{Table: Table{Family: f, Name: i.table}, Name: i.Name}, i.Drops})
		}
		return nil
	}
	return all, c.dump(m, func() { all = nil })
}

type parsedChain struct {
	ChainInfo
	table, typ string
}

func parseChain(b []byte) (p parsedChain) {
	attrs(b, func(typ uint16, d []byte) {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			p.table = text(d)
		case unix.NFTA_CHAIN_NAME:
			p.Name = text(d)
		case unix.NFTA_CHAIN_HOOK:
			p.Hooked = true
			nl.Attrs(d, func(typ uint16, d []byte) {
				switch typ {
				case unix.NFTA_HOOK_HOOKNUM:
					p.num = u32(d)
				case unix.NFTA_HOOK_PRIORITY:
					p.priority = int32(u32(d))
				}
			})
		case unix.NFTA_CHAIN_TYPE:
			p.typ = text(d)
		case unix.NFTA_CHAIN_USE:
			p.Uses = u32(d)
		case unix.NFTA_CHAIN_POLICY:
			p.Drops = u32(d) == uint32(Drop)
		}
	})
	return p
}

// HasTable reports whether the table exists.
func (c *Conn) HasTable(t Table) (found bool, err error) {
	m := query("look up "+t.String(), t.Family, unix.NFT_MSG_GETTABLE).String(unix.NFTA_TABLE_NAME, t.Name)
	m.Ignore = []unix.Errno{unix.ENOENT}
	m.Reply = func([]byte) error { found = true; return nil }
	return found, c.nl.Do(m)
}

// dump asks for many objects. A table or chain that does not exist has none.
func (c *Conn) dump(m *nl.Message, reset func()) error {
	m.Ignore = append(m.Ignore, unix.ENOENT)
	return c.nl.Dump(m, reset)
}

// DeleteBare deletes a table of iptables-nft's that says nothing: one that has
// only iptables' own chains, which accept, and neither rules nor sets.
// iptables-nft makes its tables on demand and leaves them behind.
func (c *Conn) DeleteBare(ctx context.Context, t Table) error {
	return c.Update(ctx, "delete bare "+t.String(), func(tx *Tx) error {
		there, err := c.HasTable(t)
		if err != nil || !there {
			return err
		}
		chains, err := c.Chains(t)
		if err != nil {
			return err
		}
		for _, ch := range chains {
			rules, err := c.Rules(Chain{Table: t, Name: ch.Name})
			if err != nil || !ch.Hooked || ch.Drops || len(rules) > 0 || !slices.Contains(builtin, ch.Name) {
				return err
			}
		}
		if sets, err := c.hasSets(t); err != nil || sets {
			return err
		}
		tx.DeleteTable(t)
		return nil
	})
}

// builtin are the names of iptables' own chains.
var builtin = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// SetNames returns the names of the table's sets and maps.
func (c *Conn) SetNames(t Table) (names []string, err error) {
	m := query("list sets of "+t.String(), t.Family, unix.NFT_MSG_GETSET).String(unix.NFTA_SET_TABLE, t.Name)
	m.Reply = func(b []byte) error {
		table, name := "", ""
		attrs(b, func(typ uint16, d []byte) {
			switch typ {
			case unix.NFTA_SET_TABLE:
				table = text(d)
			case unix.NFTA_SET_NAME:
				name = text(d)
			}
		})
		if table == t.Name {
			names = append(names, name)
		}
		return nil
	}
	return names, c.dump(m, func() { names = nil })
}

// hasSets reports whether the table has any set.
func (c *Conn) hasSets(t Table) (found bool, err error) {
	m := query("list sets of "+t.String(), t.Family, unix.NFT_MSG_GETSET).String(unix.NFTA_SET_TABLE, t.Name)
	m.Reply = func([]byte) error { found = true; return nil }
	return found, c.dump(m, func() { found = false })
}
