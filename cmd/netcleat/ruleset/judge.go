package ruleset

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Packet is what is judged: one from Src to Dst, over the links In and Out. What
// is not set is unknown.
type Packet struct {
	Src, Dst netip.Addr
	In, Out  string
	Proto    string // "tcp", "udp", "sctp"
	Port     uint16 // that it goes to
	Local    bool   // it goes to an address of the host
	// Answer says that the packet belongs to a connection that the other side has
	// begun.
	Answer bool
}

// Verdict is what a chain does with a packet.
type Verdict struct {
	Chain string // "ip filter FORWARD"
	By    string // the rule, or "policy drop"
	// Native says that nft(8) knows the chain, under the name of Chain.
	Native bool
	// Sure says that nothing before it can have let the packet pass that is not
	// understood here.
	Sure bool
}

// Place returns the chain's table and name.
func (v Verdict) Place() (table, name string) {
	_, chain, _ := strings.Cut(v.Chain, " ")
	table, name, _ = strings.Cut(chain, " ")
	return table, name
}

// IPTables returns the program of iptables that writes rules for an address's family into
// the chain, or "" where that is nft(8).
func (v Verdict) IPTables(a netip.Addr) (tool string) {
	table, name := v.Place()
	if v.Native && (name != strings.ToUpper(name) || !slices.Contains([]string{"raw", "mangle", "filter"}, table)) {
		return ""
	}
	if tool = "iptables"; a.Is6() {
		tool = "ip6tables"
	}
	if !v.Native {
		tool += "-legacy"
	}
	return tool
}

// tri is an answer that may be unknown.
type tri int

const (
	no tri = iota
	maybe
	yes
)

func (t tri) and(o tri) tri { return min(t, o) }

func (t tri) not() tri { return yes - t }

func answer(b bool) tri { return map[bool]tri{true: yes, false: no}[b] }

// term is one condition of a rule.
type term func(Packet) tri

// verdict is what a rule does.
type verdict struct {
	kind   kind
	target string // of a jump
}

type kind int

const (
	next kind = iota // to the next rule
	accept
	dnat // which accepts, with another destination
	drop
	back // to the caller's next rule
	jump
	goTo
	masquerade // or another source
)

// Drops returns the base chains at the hook ("forward") that drop the packet.
func (r *Ruleset) Drops(hook string, p Packet) (list []Verdict) {
	for _, c := range r.at(hook, p) {
		w := &walk{ruleset: r, packet: p}
		if end := w.chain(c, 0); c.drops && (end == next || end == back) {
			w.dropped, w.by = true, "policy drop"
		}
		if w.dropped {
			list = append(list, Verdict{Chain: c.String(), By: w.by, Native: !c.old, Sure: !w.passable})
		}
	}
	return list
}

// Redirected returns the chain that gives the packet another destination: the first
// at the hook before routing, since those behind it are not asked. It is nil where
// none is sure to.
func (r *Ruleset) Redirected(p Packet) *Verdict {
	chains := slices.DeleteFunc(r.at("prerouting", p), func(c *chain) bool { return !c.nat })
	slices.SortStableFunc(chains, func(a, b *chain) int { return cmp.Compare(a.prio, b.prio) })
	for _, c := range chains {
		w := &walk{ruleset: r, packet: p}
		w.chain(c, 0)
		switch {
		case w.passable:
			return nil // something that is not understood may have
		case w.redirected != nil:
			return &Verdict{Chain: w.redirected.String(), By: w.by, Native: !c.old, Sure: true}
		}
	}
	return nil
}

// Masqueraded says whether something gives the packet another source: 0 no, 1
// perhaps, 2 yes.
func (r *Ruleset) Masqueraded(p Packet) (certainty int) {
	for _, c := range r.at("postrouting", p) {
		w := &walk{ruleset: r, packet: p}
		w.chain(c, 0)
		certainty = max(certainty, int(w.masqueraded))
	}
	return certainty
}

func (r *Ruleset) at(hook string, p Packet) (list []*chain) {
	for _, c := range r.chains {
		if c.hook == hook && (p.Src.Is4() && c.v4 || p.Src.Is6() && c.v6) {
			list = append(list, c)
		}
	}
	return list
}

// walk is a packet's way through a base chain.
type walk struct {
	ruleset     *Ruleset
	packet      Packet
	dropped     bool
	by          string
	passable    bool // something that is not understood may have accepted
	masqueraded tri
	redirected  *chain // that has given it another destination
	doubt       bool   // the rule that led here may not match
}

// maxDepth is how deep the kernel lets chains call each other.
const maxDepth = 16

// chain walks through a chain and says how it ends: next at its end, back where
// a rule returned, accept or drop.
func (w *walk) chain(c *chain, depth int) kind {
	if c == nil || depth > maxDepth {
		return next
	}
	for _, rule := range c.rules {
		match, v := rule.match(w.packet)
		if match == no {
			continue
		}
		switch end := w.rule(c, rule, does{v, match}, depth); end {
		case next:
		default:
			return end
		}
	}
	return next
}

// match says whether the rule is for the packet, and what it then does.
func (r rule) match(p Packet) (tri, verdict) {
	all := yes
	for _, t := range r.terms {
		if all = all.and(t(p)); all == no {
			return no, verdict{}
		}
	}
	if r.lookup == nil {
		return all, r.verdict
	}
	v, found := r.lookup(p)
	return all.and(found), v
}

// does is what a rule does, and whether it is for the packet.
type does struct {
	verdict
	match tri
}

// rule does what a rule does, where it is sure to match; where not, what it may
// have done is kept in mind.
func (w *walk) rule(c *chain, r rule, v does, depth int) kind {
	sure := v.match == yes && !w.doubt
	switch v.kind {
	case jump, goTo:
		outer := w.doubt
		w.doubt = !sure
		end := w.chain(w.ruleset.find(c, v.target), depth+1)
		w.doubt = outer
		switch {
		case !sure || end == next && v.kind == jump || end == back && v.kind == jump:
			return next
		case end == next || end == back:
			return back // goto: its end is the caller's
		}
		return end
	case masquerade:
		if sure {
			w.masqueraded = yes
			return accept
		}
		w.masqueraded = max(w.masqueraded, maybe)
	case dnat:
		if sure {
			w.redirected, w.by = c, r.text
			return accept
		}
		w.passable = true
	case accept, back:
		if sure {
			return v.kind
		}
		w.passable = true
	case drop:
		if sure {
			w.dropped, w.by = true, r.text
			return drop
		}
	}
	return next
}
