// Package ruleset reads the host's packet filter, of nf_tables and of the
// kernel's old iptables, and says what it does with a packet.
//
// It knows the matches that hosts use before containers: addresses, interfaces,
// the state of a connection, sets of those. What it does not know may match or
// not, and is said to.
package ruleset

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"

	"github.com/netcleat/netcleat/pkg/iptables"
)

// Ruleset is what the host's filter had when it was read.
type Ruleset struct {
	chains []*chain
	sets   map[string]*set // by table and name
}

// chain is one of any table.
type chain struct {
	table string // "ip filter"
	name  string
	v4    bool // it sees packets of the family
	v6    bool
	hook  string // "forward", "postrouting" … of a base chain, else ""
	nat   bool   // a base chain that translates addresses
	prio  int    // of a base chain: the lowest comes first
	drops bool   // the policy
	old   bool   // of the kernel's old iptables
	rules []rule
}

func (c *chain) String() string {
	if c.old {
		return strings.Replace(c.table, " ", "tables-legacy ", 1) + " " + c.name
	}
	return c.table + " " + c.name
}

// rule is a rule with what it takes to judge by it.
type rule struct {
	text    string
	comment string
	terms   []term
	verdict verdict
	lookup  func(Packet) (verdict, tri) // of a verdict map, else nil
}

// set is a set or map with its elements.
type set struct {
	table    string
	name     string
	interval bool
	concat   bool // ranges in several fields
	elems    []nftables.SetElement
}

// Read reads the filter of the calling thread's network namespace. Without
// nf_tables and iptables it is empty.
func Read(ctx context.Context) (*Ruleset, error) {
	r := &Ruleset{sets: map[string]*set{}}
	if err := r.readNative(); err != nil {
		return r, fmt.Errorf("nf_tables: %w", err)
	}
	for _, tool := range iptables.Both(true) {
		for _, table := range []string{"raw", "mangle", "filter", "nat"} {
			if !tool.Loaded(table) {
				continue
			}
			lines, err := tool.Save(ctx, table)
			if err != nil {
				return r, err
			}
			r.addLegacy(tool.V6, table, lines)
		}
	}
	return r, nil
}

// hooks are the names of the numbers that ip, ip6 and inet tables have.
var hooks = []string{"prerouting", "input", "forward", "output", "postrouting"}

func (r *Ruleset) readNative() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	chains, err := c.ListChains()
	if err != nil {
		return err
	}
	var errs error
	for _, ch := range chains {
		own := newChain(ch)
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			errs = cmp.Or(errs, fmt.Errorf("%s: %w", own, err))
			continue
		}
		d := &decoder{ruleset: r, table: own.table, conn: c, v6: ch.Table.Family == nftables.TableFamilyIPv6}
		for _, nr := range rules {
			own.rules = append(own.rules, d.rule(nr))
		}
		r.chains = append(r.chains, own)
	}
	return errs
}

func newChain(ch *nftables.Chain) *chain {
	own := &chain{table: tableName(ch.Table), name: ch.Name}
	own.v4 = ch.Table.Family == nftables.TableFamilyIPv4 || ch.Table.Family == nftables.TableFamilyINet
	own.v6 = ch.Table.Family == nftables.TableFamilyIPv6 || ch.Table.Family == nftables.TableFamilyINet
	if ch.Hooknum != nil && (own.v4 || own.v6) && int(*ch.Hooknum) < len(hooks) {
		own.hook = hooks[*ch.Hooknum]
	}
	own.nat = ch.Type == nftables.ChainTypeNAT
	if ch.Priority != nil {
		own.prio = int(*ch.Priority)
	}
	own.drops = ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop
	return own
}

func tableName(t *nftables.Table) string {
	families := map[nftables.TableFamily]string{
		nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
		nftables.TableFamilyBridge: "bridge", nftables.TableFamilyARP: "arp", nftables.TableFamilyNetdev: "netdev",
	}
	return families[t.Family] + " " + t.Name
}

func commentOf(nr *nftables.Rule) string {
	s, _ := userdata.GetString(nr.UserData, userdata.TypeComment)
	return s
}

// find returns the chain of a table.
func (r *Ruleset) find(like *chain, name string) *chain {
	i := slices.IndexFunc(r.chains, func(c *chain) bool { return c.table == like.table && c.name == name && c.old == like.old })
	if i < 0 {
		return nil
	}
	return r.chains[i]
}

// Speaks reports whether a rule's comment, or a chain's name, has the word.
func (r *Ruleset) Speaks(word string) bool {
	return slices.ContainsFunc(r.chains, func(c *chain) bool {
		return strings.Contains(c.name, word) || slices.ContainsFunc(c.rules, func(r rule) bool { return strings.Contains(r.comment, word) })
	})
}
