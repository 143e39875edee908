package clusterlocal

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/pkg/ipmath"
	"github.com/netcleat/netcleat/pkg/ranges"
	"github.com/netcleat/netcleat/pkg/slot"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// Pool is a network as a host sees it: its range sets, how they are cut, and where
// its leases are. Hosts may have different limits within the subnets; they leave
// addresses unused, and nothing else.
type Pool struct {
	Name    string
	Dir     string // of the leases
	Sets    []ranges.Set
	Exclude []netip.Prefix
	Layout  slot.Layout
	// Overlay is the key vxlan of an overlay network that the daemon forwards for, which is
	// on Bridge; nil is none.
	Overlay *vxlan.Conf
	Bridge  string
}

// Usable returns which addresses of a set are in the parts, and may be handed out.
func (p *Pool) Usable(set int, parts slot.Parts) ranges.Set {
	prefixes := make([]netip.Prefix, len(parts))
	for i, part := range parts {
		prefixes[i] = p.Layout.Prefix(set, part)
	}
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return p.Sets[set].Within(prefixes, p.Exclude)
}

// Capacity returns for how many attachments a part has addresses.
func (p *Pool) Capacity(part slot.Part) uint64 {
	n := p.Usable(0, slot.Parts{part}).Size()
	for i := 1; i < len(p.Sets); i++ {
		n = min(n, p.Usable(i, slot.Parts{part}).Size())
	}
	return n
}

// Free returns for how many attachments more the parts have addresses.
func (p *Pool) Free(parts slot.Parts, leases ranges.Counter) uint64 {
	least := ^uint64(0)
	for i := range p.Sets {
		set := p.Usable(i, parts)
		least = min(least, set.Size()-set.Held(leases))
	}
	return least
}

// Idle reports whether no address of a part is held, be it one that is handed out or
// not.
func (p *Pool) Idle(part slot.Part, leases ranges.Counter) bool {
	for i := range p.Sets {
		x := p.Layout.Prefix(i, part)
		if leases.CountHeld(x.Addr(), ipmath.Last(x)) > 0 {
			return false
		}
	}
	return true
}

// Bounds returns the first and last slots in which addresses may be handed out, for
// each range, in order.
func (p *Pool) Bounds() (all [][2]uint64) {
	for _, r := range p.Sets[0].Ranges() {
		first, ok := p.Layout.Find(0, r.First)
		last, _ := p.Layout.Find(0, r.Last)
		if ok {
			all = append(all, [2]uint64{first.Slot, min(last.Slot, p.Layout.Slots()-1)})
		}
	}
	slices.SortFunc(all, func(a, b [2]uint64) int { return cmp.Compare(a[0], b[0]) })
	return all
}

// Find returns the smallest part that has an address.
func (p *Pool) Find(a netip.Addr) (slot.Part, bool) {
	for i, set := range p.Sets {
		for _, r := range set.Ranges() {
			if r.Subnet.Contains(a) {
				return p.Layout.Find(i, a)
			}
		}
	}
	return slot.Part{}, false
}
