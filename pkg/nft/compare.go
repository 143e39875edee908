package nft

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/look"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Ruleset is the rules of a table, by chain, in order.
type Ruleset map[string][]RuleInfo

// Ruleset returns all rules of a table, by one request. A table that does not
// exist has none.
func (c *Conn) Ruleset(t Table) (Ruleset, error) {
	return look.Once(c.look, listed{"rules", t, ""}, func() (Ruleset, error) { return c.ruleset(t) })
}

func (c *Conn) ruleset(t Table) (all Ruleset, err error) {
	m := query("list rules of "+t.String(), t.Family, unix.NFT_MSG_GETRULE).String(unix.NFTA_RULE_TABLE, t.Name)
	m.Reply = func(b []byte) error {
		if r, table, chain := parseRule(b); table == t.Name {
			all[chain] = append(all[chain], r)
		}
		return nil
	}
	return all, c.dump(m, func() { all = Ruleset{} })
}

// Lacks returns the first of the rules that is missing, or that comes before one
// that it has to follow; nil is none. What others have added is no difference.
func (s Ruleset) Lacks(want ...Rule) *Rule {
	at := map[string]int{}
	for i, w := range want {
		have, from := s[w.Chain.Name], at[w.Chain.Name]
		found := slices.IndexFunc(have[from:], func(r RuleInfo) bool { return r.Is(w) })
		if found < 0 {
			return &want[i]
		}
		at[w.Chain.Name] = from + found + 1
	}
	return nil
}

// Ensure appends to each chain the rules that belong there, unless all of them
// are there in that order. s is what was there before. A rule that is out of
// place, or was changed and is known by its comment, is deleted.
func (tx *Tx) Ensure(s Ruleset, want ...Rule) {
	for len(want) > 0 {
		chain := want[0].Chain
		own := slices.DeleteFunc(slices.Clone(want), func(r Rule) bool { return r.Chain.Name != chain.Name })
		want = slices.DeleteFunc(slices.Clone(want), func(r Rule) bool { return r.Chain.Name == chain.Name })
		if s.Lacks(own...) == nil {
			continue
		}
		tx.replace(s[chain.Name], own)
	}
}

// EnsureFirst inserts a rule at the beginning of its chain unless it is there.
func (tx *Tx) EnsureFirst(s Ruleset, r Rule) {
	m := nl.NewMessage("", 0, 0).String(0, r.Chain.Name)
	for _, e := range r.Exprs {
		e.write(m)
	}
	if key := string(m.Body()); s.Lacks(r) != nil && !tx.first[key] {
		tx.first[key] = true
		tx.Insert(r)
	}
}

// replace deletes what is there of the rules of one chain, and appends them.
func (tx *Tx) replace(have []RuleInfo, own []Rule) {
	for _, r := range have {
		if slices.ContainsFunc(own, func(w Rule) bool { return r.Is(w) || w.Comment != "" && r.Comment == w.Comment }) {
			tx.DeleteRule(own[0].Chain, r.Handle)
		}
	}
	for _, w := range own {
		tx.Append(w)
	}
}

// Is reports whether the rule is what Append makes of want: each expression, and
// the comment. What counters have counted is no difference.
func (r RuleInfo) Is(want Rule) bool {
	return r.Comment == want.Comment && r.Does(want.Exprs)
}

// Does reports whether the rule has these expressions. The comment that
// iptables(8) has among them does not count.
func (r RuleInfo) Does(want []Expr) bool {
	same := true
	eachExpr(r.exprs, func(name string, data []byte) {
		if name == "match" && xtComment(data) != "" {
			return
		}
		same = same && len(want) > 0 && want[0].is(name, data)
		if len(want) > 0 {
			want = want[1:]
		}
	})
	return same && len(want) == 0
}

// is reports whether the expression is what the kernel tells.
func (e Expr) is(name string, data []byte) bool {
	if e.name != name {
		return false
	}
	m := nl.NewMessage("", 0, 0)
	e.write(m)
	switch name {
	case "counter":
		return true
	case "nat": // the kernel adds ends of ranges, and flags that follow from the rest
		return holds(data, m.Body())
	}
	return holds(data, m.Body()) && addsNothing(data, m.Body())
}

// holds reports whether the attributes of want are among those of got.
func holds(got, want []byte) bool {
	all := true
	nl.RawAttrs(want, func(typ uint16, data []byte) {
		value, nested := find(got, typ), typ&unix.NLA_F_NESTED != 0
		same := bytes.Equal(value, data) || nested && holds(value, data)
		// The kernel pads a match of iptables' to eight bytes.
		padded := len(value) > len(data) && len(value)-len(data) < 8 && bytes.HasPrefix(value, data) && isZero(value[len(data):])
		all = all && (same || !nested && padded)
	})
	return all
}

// addsNothing reports whether what got has besides want says nothing: it is zero.
func addsNothing(got, want []byte) bool {
	nothing := true
	nl.RawAttrs(got, func(typ uint16, data []byte) {
		if find(want, typ) == nil && !isZero(data) {
			nothing = false
		}
	})
	return nothing
}

func isZero(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

// find returns the attribute of a type, or nil.
func find(attrs []byte, typ uint16) (found []byte) {
	nl.Attrs(attrs, func(t uint16, data []byte) {
		if t == typ&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) {
			found = data
		}
	})
	return found
}

// kernel returns the register's number as the kernel tells it: the first of four
// is one of the 16-byte registers, NFT_REG_1 being 1; the others count from
// NFT_REG32_00, 8.
func (r Reg) kernel() []byte {
	if r%4 == 0 {
		return be32(uint32(r)/4 + 1)
	}
	return be32(uint32(r) + 8)
}
