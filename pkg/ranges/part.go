package ranges

import (
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/pkg/ipmath"
)

// Ranges returns what the ranges of the set come to.
func (s Set) Ranges() []Range {
	all := make([]Range, len(s))
	for i, r := range s {
		all[i] = Range{r.Subnet.Prefix, r.Start.Addr, r.End.Addr, r.Gateway.Addr}
	}
	return all
}

// Within returns what of the set is in one of the prefixes, which are in order, and
// in none of those left out.
func (s Set) Within(prefixes, without []netip.Prefix) Set {
	var out Set
	for _, r := range s {
		for _, p := range prefixes {
			if part, ok := r.within(p); ok {
				out = append(out, part.minus(without)...)
			}
		}
	}
	return out.joined()
}

func (r addrRange) within(p netip.Prefix) (addrRange, bool) {
	first, last := p.Addr(), ipmath.Last(p)
	if first.BitLen() != r.Start.BitLen() {
		return r, false
	}
	if r.Start.Less(first) {
		r.Start.Addr = first
	}
	if last.Less(r.End.Addr) {
		r.End.Addr = last
	}
	return r, !r.End.Less(r.Start.Addr)
}

// minus returns the range less the prefixes.
func (r addrRange) minus(without []netip.Prefix) Set {
	out := Set{r}
	for _, p := range without {
		var next Set
		for _, o := range out {
			next = append(next, o.less(p)...)
		}
		out = next
	}
	return out
}

func (r addrRange) less(p netip.Prefix) (out Set) {
	if _, overlaps := r.within(p); !overlaps {
		return Set{r}
	}
	first, last := p.Addr(), ipmath.Last(p)
	if r.Start.Less(first) {
		below := r
		below.End.Addr = first.Prev()
		out = append(out, below)
	}
	if last.Less(r.End.Addr) {
		above := r
		above.Start.Addr = last.Next()
		out = append(out, above)
	}
	return out
}

// joined puts ranges together that follow each other.
func (s Set) joined() Set {
	slices.SortFunc(s, func(a, b addrRange) int { return a.Start.Compare(b.Start.Addr) })
	var out Set
	for _, r := range s {
		if n := len(out); n > 0 && out[n-1].Subnet == r.Subnet && out[n-1].End.Next() == r.Start.Addr {
			out[n-1].End = r.End
			continue
		}
		out = append(out, r)
	}
	return out
}

// Size returns how many addresses the set hands out, or the largest number.
func (s Set) Size() uint64 { return s.size() }

// Counter tells how many addresses are held, as a lease.Store does.
type Counter interface {
	CountHeld(first, last netip.Addr) uint64
	IsHeld(addr netip.Addr) bool
}

// Held counts the addresses that are held, of those that are handed out.
func (s Set) Held(leases Counter) uint64 { return s.held(leases) }
