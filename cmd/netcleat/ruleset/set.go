package ruleset

import (
	"bytes"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// lookup knows sets and maps of what is known.
func (d *decoder) lookup(e *expr.Lookup) {
	s := d.set(e.SetName)
	first := slot(e.SourceRegister)
	regs := d.regs
	find := func(p Packet) (*nftables.SetElement, tri) {
		if s == nil || s.concat {
			return nil, maybe
		}
		return s.find(gather(regs[:], first, p))
	}
	d.say("%s @%s", d.regs[first].name, e.SetName)
	if !e.IsDestRegSet {
		d.out.terms = append(d.out.terms, func(p Packet) tri {
			_, found := find(p)
			if e.Invert {
				return found.not()
			}
			return found
		})
		return
	}
	const verdictRegister = 0
	if e.DestRegister != verdictRegister {
		d.out.terms = append(d.out.terms, func(p Packet) tri { _, found := find(p); return found })
		d.regs[slot(e.DestRegister)] = register{"map", 16, func(Packet) bits { return unknown(16) }}
		return
	}
	d.out.lookup = func(p Packet) (verdict, tri) {
		el, found := find(p)
		if el == nil || el.VerdictData == nil {
			// Which of its verdicts it would be is not known: any may accept.
			return verdict{kind: accept}, found
		}
		return verdictOf(el.VerdictData), found
	}
}

// gather puts what registers hold together, each padded to four bytes.
func gather(regs []register, first int, p Packet) (all bits) {
	for i := first; i < len(regs) && regs[i].load != nil; {
		b := regs[i].load(p)
		all.value, all.known = append(all.value, b.value...), append(all.known, b.known...)
		for len(all.value)%4 != 0 {
			all.value, all.known = append(all.value, 0), append(all.known, 0xff)
		}
		i += (regs[i].size + 3) / 4
	}
	return all
}

// set reads a set of the table once.
func (d *decoder) set(name string) *set {
	key := d.table + " " + name
	if s, seen := d.ruleset.sets[key]; seen {
		return s
	}
	s := d.readSet(name)
	d.ruleset.sets[key] = s
	return s
}

func (d *decoder) readSet(name string) *set {
	family, table, _ := strings.Cut(d.table, " ")
	families := map[string]nftables.TableFamily{
		"ip": nftables.TableFamilyIPv4, "ip6": nftables.TableFamilyIPv6, "inet": nftables.TableFamilyINet, "bridge": nftables.TableFamilyBridge,
	}
	f, ok := families[family]
	if !ok {
		return nil
	}
	ns, err := d.conn.GetSetByName(&nftables.Table{Family: f, Name: table}, name)
	if err != nil {
		return nil
	}
	elems, err := d.conn.GetSetElements(ns)
	if err != nil {
		return nil
	}
	s := &set{table: d.table, name: name, interval: ns.Interval, concat: ns.Concatenation && ns.Interval, elems: elems}
	slices.SortStableFunc(s.elems, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	return s
}

// find looks for the element of a value.
func (s *set) find(b bits) (*nftables.SetElement, tri) {
	result := no
	for i, e := range s.elems {
		if len(e.Key) > len(b.value) {
			return nil, maybe
		}
		switch eq := b.equal(e.Key); {
		case eq == yes && !e.IntervalEnd:
			return &s.elems[i], yes
		case eq == maybe:
			result = maybe
		}
	}
	if !s.interval || result == maybe {
		return nil, result
	}
	return s.within(b)
}

// within looks for the interval that a value which is all known is in.
func (s *set) within(b bits) (found *nftables.SetElement, _ tri) {
	for i, e := range s.elems {
		if bytes.Compare(e.Key, b.value[:len(e.Key)]) > 0 {
			break
		}
		found = &s.elems[i]
	}
	if found == nil || found.IntervalEnd {
		return nil, no
	}
	return found, yes
}
