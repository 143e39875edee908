// Package slot cuts the ranges of a network into slots, which hosts of a cluster own
// in whole or in parts, and reads and writes who owns what.
//
// A slot is as many addresses of each range set, at the same offset: in a network
// with IPv4 and IPv6, who owns an IPv4 block owns its IPv6 counterpart.
package slot

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/netcleat/netcleat/pkg/ipmath"
)

// maxBits bounds the logarithms of the number of slots, and of the addresses in one.
const (
	maxBits  = 62
	maxSlots = 1 << maxBits
)

// Layout says how the subnets of a network are cut.
type Layout struct {
	sets  [][]netip.Prefix
	bits  uint8 // a slot has 1<<bits addresses of each set
	slots uint64
}

// usualBits is the size of a slot where the configuration says nothing, in small
// ranges less.
const usualBits = 6

// New cuts the subnets of the range sets. blockSize is the prefix length of a slot:
// of an IPv4 one up to 32, of an IPv6 one above; 0 chooses.
func New(sets [][]netip.Prefix, blockSize int) (Layout, error) {
	l := Layout{sets: sets}
	if err := disjoint(sets); err != nil {
		return l, err
	}
	smallest := 128
	families := map[bool]bool{}
	for _, set := range sets {
		for _, p := range set {
			host := p.Addr().BitLen() - p.Bits()
			smallest = min(smallest, host)
			families[p.Addr().Is4()] = true
		}
	}
	if len(families) == 0 {
		return l, errors.New("no ranges")
	}
	size := max(min(smallest-4, usualBits), 0)
	switch {
	case blockSize == 0:
	case blockSize < 0 || blockSize > 128:
		return l, fmt.Errorf("blockSize %d: want a prefix length", blockSize)
	case blockSize <= 32 && families[true]:
		size = 32 - blockSize
	case blockSize > 32 && families[false]:
		size = 128 - blockSize
	default:
		return l, fmt.Errorf("blockSize %d: up to 32 it is of an IPv4 block, above of an IPv6 one, and there is no such range", blockSize)
	}
	if size > smallest {
		return l, fmt.Errorf("blockSize %d: larger than the smallest range, which has %d host bits", blockSize, smallest)
	}
	if size > maxBits {
		return l, fmt.Errorf("blockSize %d: a block has more than 2^%d addresses", blockSize, maxBits)
	}
	l.bits = uint8(size)
	l.count()
	return l, nil
}

// disjoint refuses subnets that overlap: an address has one slot.
func disjoint(sets [][]netip.Prefix) error {
	var all []netip.Prefix
	for _, set := range sets {
		for _, p := range set {
			for _, o := range all {
				if p.Overlaps(o) {
					return fmt.Errorf("subnets %s and %s overlap", o, p)
				}
			}
			all = append(all, p)
		}
	}
	return nil
}

// count finds the number of slots: those of the smallest set.
func (l *Layout) count() {
	l.slots = maxSlots
	for _, set := range l.sets {
		var n uint64
		for _, p := range set {
			n = min(n+l.slotsIn(p), maxSlots)
		}
		l.slots = min(l.slots, n)
	}
}

// slotsIn returns the number of slots of a subnet. No more than maxSlots are used.
func (l *Layout) slotsIn(p netip.Prefix) uint64 {
	return 1 << min(p.Addr().BitLen()-p.Bits()-int(l.bits), maxBits)
}

// String is the layout as the cluster records it. Hosts whose layouts have the same
// text mean the same addresses by a part.
func (l Layout) String() string {
	sets := make([]string, len(l.sets))
	for i, set := range l.sets {
		ps := make([]string, len(set))
		for j, p := range set {
			ps[j] = p.String()
		}
		sets[i] = strings.Join(ps, ",")
	}
	return fmt.Sprintf("%d %s", l.bits, strings.Join(sets, ";"))
}

// ParseLayout reads the text of a layout.
func ParseLayout(s string) (Layout, error) {
	var size uint8
	var rest string
	if len(s) > 4096 {
		return Layout{}, errors.New("layout: too long")
	}
	if n, err := fmt.Sscanf(s, "%d %s", &size, &rest); n != 2 || err != nil {
		return Layout{}, fmt.Errorf("layout %q: want SIZE SUBNETS", s)
	}
	var sets [][]netip.Prefix
	for text := range strings.SplitSeq(rest, ";") {
		var set []netip.Prefix
		for one := range strings.SplitSeq(text, ",") {
			p, err := netip.ParsePrefix(one)
			if err != nil || p.Masked() != p {
				return Layout{}, fmt.Errorf("layout %q: subnet %q", s, one)
			}
			set = append(set, p)
		}
		sets = append(sets, set)
	}
	first := sets[0][0].Addr().BitLen()
	if int(size) >= first {
		return Layout{}, fmt.Errorf("layout %q: size of a block", s)
	}
	l, err := New(sets, first-int(size))
	if err == nil && l.String() != s {
		err = fmt.Errorf("layout %q: not as it is written", s)
	}
	return l, err
}

// Slots returns the number of slots.
func (l Layout) Slots() uint64 { return l.slots }

// Bits returns the logarithm of the addresses of a slot.
func (l Layout) Bits() uint8 { return l.bits }

// Whole returns the part that is all of a slot.
func (l Layout) Whole(n uint64) Part { return Part{Slot: n, Bits: l.bits} }

// Find returns where an address of a set is: the smallest part that has it.
func (l Layout) Find(set int, a netip.Addr) (Part, bool) {
	var before uint64
	for _, p := range l.sets[set] {
		if !p.Contains(a) {
			before = min(before+l.slotsIn(p), maxSlots)
			continue
		}
		hi, lo := distance(a, p.Addr())
		n := shifted(hi, lo, l.bits)
		part := Part{Slot: before + n, Off: lo & (1<<l.bits - 1)}
		return part, hi>>l.bits == 0 && n < l.slotsIn(p) && part.Slot < l.slots
	}
	return Part{}, false
}

// Prefix returns the addresses of a part in a set.
func (l Layout) Prefix(set int, at Part) netip.Prefix {
	n := at.Slot
	for _, p := range l.sets[set] {
		if slots := l.slotsIn(p); n >= slots {
			n -= slots
			continue
		}
		hi, lo := n>>(64-l.bits), n<<l.bits|at.Off
		return netip.PrefixFrom(add(p.Addr(), hi, lo), p.Addr().BitLen()-int(at.Bits))
	}
	return netip.Prefix{}
}

// Sets returns the number of range sets.
func (l Layout) Sets() int { return len(l.sets) }

func shifted(hi, lo uint64, n uint8) uint64 { return hi<<(64-n) | lo>>n }

func distance(a, from netip.Addr) (hi, lo uint64) {
	ahi, alo := ipmath.Halves(a)
	bhi, blo := ipmath.Halves(from)
	lo, borrow := bits.Sub64(alo, blo, 0)
	hi, _ = bits.Sub64(ahi, bhi, borrow)
	return hi, lo
}

func add(a netip.Addr, hi, lo uint64) netip.Addr {
	ahi, alo := ipmath.Halves(a)
	lo, carry := bits.Add64(alo, lo, 0)
	hi, _ = bits.Add64(ahi, hi, carry)
	var b [16]byte
	for i := range 8 {
		b[i], b[8+i] = byte(hi>>(56-8*i)), byte(lo>>(56-8*i))
	}
	if r := netip.AddrFrom16(b); !a.Is4() {
		return r
	}
	return netip.AddrFrom16(b).Unmap()
}
