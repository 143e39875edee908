package nft

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// Rule is a rule that is to be added.
type Rule struct {
	Chain   Chain
	Exprs   []Expr
	Comment string
	Proto   uint8 // the protocol that iptables' matches are told of; 0 is none
}

// String names the rule by its comment, or as one of its chain.
func (r Rule) String() string {
	if r.Comment == "" {
		return "a rule of chain " + r.Chain.Name
	}
	return fmt.Sprintf("rule %q of chain %s", r.Comment, r.Chain.Name)
}

// Append adds a rule at the end of its chain.
func (tx *Tx) Append(r Rule) { tx.rule(r, unix.NLM_F_APPEND) }

// Insert adds a rule at the beginning of its chain.
func (tx *Tx) Insert(r Rule) { tx.rule(r, 0) }

func (tx *Tx) rule(r Rule, flags uint16) {
	m := message("add rule to "+r.Chain.Name, r.Chain.Table.Family, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|flags)
	m.String(unix.NFTA_RULE_TABLE, r.Chain.Table.Name).String(unix.NFTA_RULE_CHAIN, r.Chain.Name)
	m.Begin(unix.NFTA_RULE_EXPRESSIONS | unix.NLA_F_NESTED)
	for _, e := range r.Exprs {
		m.Begin(unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED)
		m.String(unix.NFTA_EXPR_NAME, e.name)
		m.Begin(unix.NFTA_EXPR_DATA | unix.NLA_F_NESTED)
		e.write(m)
		m.End().End()
	}
	m.End()
	if r.Proto != 0 {
		m.Begin(unix.NFTA_RULE_COMPAT | unix.NLA_F_NESTED)
		m.Attr(unix.NFTA_RULE_COMPAT_PROTO, be32(uint32(r.Proto))).Attr(unix.NFTA_RULE_COMPAT_FLAGS, be32(0))
		m.End()
	}
	if r.Comment != "" {
		m.Attr(unix.NFTA_RULE_USERDATA, comments(r.Comment))
	}
	tx.add(m)
}

// RuleInfo is what the kernel says of a rule.
type RuleInfo struct {
	Handle  uint64
	Comment string
	Target  string   // the chain that the rule jumps or goes to; "" is none
	Ends    bool     // it accepts, drops or returns, or gives another source (iptables' SNAT): no later rule of the chain counts
	Stops   bool     // it drops, rejects, or leaves that to another chain or to a target of iptables'
	Values  [][]byte // what its comparisons compare with
	Ports   []uint16 // what iptables' multiport compares with
	Loads   [][]byte // what it loads, such as the address that a translation leads to

	exprs []byte // as the kernel tells them
}

// DeleteRule deletes a rule by its handle.
func (tx *Tx) DeleteRule(c Chain, handle uint64) {
	m := tx.add(message("delete rule of "+c.Name, c.Table.Family, unix.NFT_MSG_DELRULE, 0))
	m.String(unix.NFTA_RULE_TABLE, c.Table.Name).String(unix.NFTA_RULE_CHAIN, c.Name).Attr(unix.NFTA_RULE_HANDLE, be64(handle))
}

// Rules returns the rules of a chain in order. A chain that does not exist has
// none.
func (c *Conn) Rules(ch Chain) ([]RuleInfo, error) {
	return list(c, listed{"rules", ch.Table, ch.Name}, func() ([]RuleInfo, error) { return c.rules(ch) })
}

func (c *Conn) rules(ch Chain) (all []RuleInfo, err error) {
	m := query("list rules of "+ch.Name, ch.Table.Family, unix.NFT_MSG_GETRULE)
	m.String(unix.NFTA_RULE_TABLE, ch.Table.Name).String(unix.NFTA_RULE_CHAIN, ch.Name)
	m.Reply = func(b []byte) error {
		r, table, chain := parseRule(b)
		if table == ch.Table.Name && chain == ch.Name {
			all = append(all, r)
		}
		return nil
	}
	return all, c.dump(m, func() { all = nil })
}

func parseRule(b []byte) (r RuleInfo, table, chain string) {
	attrs(b, func(typ uint16, d []byte) {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			table = text(d)
		case unix.NFTA_RULE_CHAIN:
			chain = text(d)
		case unix.NFTA_RULE_HANDLE:
			r.Handle = u64(d)
		case unix.NFTA_RULE_USERDATA:
			r.Comment = comment(d)
		case unix.NFTA_RULE_EXPRESSIONS:
			r.expressions(d)
		}
	})
	return r, table, chain
}

// expressions finds the rule's target and the comment that iptables(8) gave it.
func (r *RuleInfo) expressions(list []byte) {
	r.exprs = slices.Clone(list)
	eachExpr(list, func(name string, data []byte) {
		switch name {
		case "immediate":
			r.immediate(data)
		case "cmp":
			r.Values = append(r.Values, cmpValue(data))
		case "match":
			r.match(data)
		case "target":
			r.Ends = r.Ends || xtTarget(data) == "SNAT"
			r.Stops = true
		case "reject", "queue":
			r.Stops = true
		}
	})
}

// eachExpr calls fn with each expression of a list.
func eachExpr(list []byte, fn func(name string, data []byte)) {
	nl.Attrs(list, func(_ uint16, elem []byte) {
		name, data := "", []byte(nil)
		nl.Attrs(elem, func(typ uint16, d []byte) {
			switch typ {
			case unix.NFTA_EXPR_NAME:
				name = text(d)
			case unix.NFTA_EXPR_DATA:
				data = d
			}
		})
		fn(name, data)
	})
}

func cmpValue(cmp []byte) (v []byte) {
	nl.Attrs(cmp, func(typ uint16, d []byte) {
		if typ == unix.NFTA_CMP_DATA {
			v = value(d)
		}
	})
	return v
}

// immediate finds the chain of a verdict, or the value that is loaded.
func (r *RuleInfo) immediate(data []byte) {
	nl.Attrs(data, func(typ uint16, d []byte) {
		if typ != unix.NFTA_IMMEDIATE_DATA {
			return
		}
		if v := value(d); v != nil {
			r.Loads = append(r.Loads, v)
		}
		nl.Attrs(d, func(typ uint16, d []byte) {
			if typ == unix.NFTA_DATA_VERDICT {
				r.Target = verdictChain(d)
				r.Ends = r.Target == ""
				r.Stops = r.Stops || r.Target != "" || verdictCode(d) == Drop
			}
		})
	})
}

func verdictCode(verdict []byte) (code Verdict) {
	nl.Attrs(verdict, func(typ uint16, d []byte) {
		if typ == unix.NFTA_VERDICT_CODE {
			code = Verdict(u32(d))
		}
	})
	return code
}

func verdictChain(verdict []byte) (chain string) {
	nl.Attrs(verdict, func(typ uint16, d []byte) {
		if typ == unix.NFTA_VERDICT_CHAIN {
			chain = text(d)
		}
	})
	return chain
}

// DropChain deletes a chain and the rules of parent that enter it, but for those
// to keep; then the chain stays as well.
func (c *Conn) DropChain(tx *Tx, chain, parent Chain, keep func(RuleInfo) bool) error {
	rules, err := c.Rules(parent)
	if err != nil {
		return err
	}
	kept := false
	for _, r := range rules {
		switch {
		case r.Target != chain.Name:
		case keep != nil && keep(r):
			kept = true
		default:
			tx.DeleteRule(parent, r.Handle)
		}
	}
	if kept {
		return nil
	}
	tx.FlushChain(chain)
	tx.DeleteChain(chain)
	return nil
}
