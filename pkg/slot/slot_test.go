package slot

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/netcleat/netcleat/pkg/ipmath"
)

func prefixes(all ...string) (set []netip.Prefix) {
	for _, s := range all {
		set = append(set, netip.MustParsePrefix(s))
	}
	return set
}

func TestLayout(t *testing.T) {
	for _, c := range []struct {
		sets  [][]netip.Prefix
		block int
		slots uint64
		bits  uint8
		last  string
	}{
		{[][]netip.Prefix{prefixes("10.0.0.0/30")}, 0, 4, 0, "10.0.0.3/32"},
		{[][]netip.Prefix{prefixes("10.0.0.0/24")}, 0, 16, 4, "10.0.0.240/28"},
		{[][]netip.Prefix{prefixes("10.0.0.0/12")}, 0, 1 << 14, 6, "10.15.255.192/26"},
		{[][]netip.Prefix{prefixes("10.0.0.0/24", "10.2.0.0/24")}, 26, 8, 6, "10.2.0.192/26"},
		{[][]netip.Prefix{prefixes("fd00::/126")}, 0, 4, 0, "fd00::3/128"},
		{[][]netip.Prefix{prefixes("fd00::/48")}, 0, 1 << 62, 6, "fd00::f:ffff:ffff:ffff:ffc0/122"},
		{[][]netip.Prefix{prefixes("fd00::/48")}, 128, 1 << 62, 0, "fd00::3fff:ffff:ffff:ffff/128"},
		{[][]netip.Prefix{prefixes("10.0.0.0/24"), prefixes("fd00::/64")}, 32, 256, 0, "10.0.0.255/32"},
		{[][]netip.Prefix{prefixes("fd00::/48", "fd01::/48")}, 66, 1 << 19, 62, "fd01:0:0:ffff:c000::/66"},
		{[][]netip.Prefix{prefixes("10.0.0.0/24"), prefixes("fd00::/64")}, 28, 16, 4, "10.0.0.240/28"},
	} {
		l, err := New(c.sets, c.block)
		if err != nil {
			t.Fatal(err)
		}
		if l.Slots() != c.slots || l.Bits() != c.bits {
			t.Errorf("%s: %d slots of 2^%d", l, l.Slots(), l.Bits())
		}
		if got := l.Prefix(0, l.Whole(l.Slots()-1)).String(); got != c.last {
			t.Errorf("%s: the last block is %s, want %s", l, got, c.last)
		}
		for i := range c.sets {
			for range 100 {
				p := Part{Slot: rand.Uint64N(l.Slots()), Off: rand.Uint64() & (1<<l.Bits() - 1)}
				if got, ok := l.Find(i, l.Prefix(i, p).Addr()); !ok || got != p {
					t.Fatalf("%s: %+v is %s, and that is %+v", l, p, l.Prefix(i, p), got)
				}
			}
		}
	}
	for _, block := range []int{-1, 129, 64, 23} {
		if _, err := New([][]netip.Prefix{prefixes("10.0.0.0/24")}, block); err == nil {
			t.Errorf("blockSize %d of 10.0.0.0/24 was accepted", block)
		}
	}
	for _, sets := range [][][]netip.Prefix{
		{prefixes("10.0.0.0/24", "10.0.0.0/24")}, {prefixes("10.0.0.0/24", "10.0.0.0/25")}, {prefixes("10.0.0.0/24"), prefixes("10.0.0.0/24")},
	} {
		if _, err := New(sets, 0); err == nil {
			t.Errorf("%v: an address has two slots", sets)
		}
	}
	if _, err := New([][]netip.Prefix{prefixes("fd00::/48")}, 65); err == nil {
		t.Error("a block of 2^63 addresses was accepted")
	}
}

// TestPairs cuts ranges of both families from the smallest to the largest with blocks
// from one address to the whole range: an address has one place, at which its
// counterpart has the same.
func TestPairs(t *testing.T) {
	for _, bits4 := range []int{30, 29, 24, 16, 12} {
		for _, bits6 := range []int{126, 125, 120, 112, 64, 48} {
			sets := [][]netip.Prefix{{netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), bits4)}, {netip.PrefixFrom(netip.MustParseAddr("fd00::"), bits6)}}
			for block := max(bits4, bits6-96); block <= 32; block++ {
				l, err := New(sets, block)
				if err != nil {
					t.Fatalf("%v, blockSize %d: %v", sets, block, err)
				}
				checkPairs(t, l, sets)
				if back, err := ParseLayout(l.String()); err != nil || back.Slots() != l.Slots() || back.Bits() != l.Bits() {
					t.Fatalf("%s: %s, %v", l, back, err)
				}
			}
		}
	}
}

func checkPairs(t *testing.T, l Layout, sets [][]netip.Prefix) {
	t.Helper()
	size := uint64(1) << l.Bits()
	for _, slot := range []uint64{0, l.Slots() / 2, l.Slots() - 1} {
		for _, off := range []uint64{0, size / 2, size - 1} {
			p := Part{Slot: slot, Off: off}
			for i, set := range sets {
				x := l.Prefix(i, p)
				if got, ok := l.Find(i, x.Addr()); !ok || got != p || !x.IsSingleIP() || !set[0].Contains(x.Addr()) {
					t.Fatalf("%s: %+v is %s, and that is %+v", l, p, x, got)
				}
			}
			// As many addresses from the first one, in both ranges.
			a, b := l.Prefix(0, p).Addr().As4(), l.Prefix(1, p).Addr().As16()
			if a[1] != b[13] || a[2] != b[14] || a[3] != b[15] {
				t.Fatalf("%s: %+v pairs %v and %v", l, p, l.Prefix(0, p), l.Prefix(1, p))
			}
		}
	}
	// What has no counterpart has no place.
	if last := ipmath.Last(sets[1][0]); l.Slots()<<l.Bits() < 1<<62 && netip.PrefixFrom(last, 128) != l.Prefix(1, Part{Slot: l.Slots() - 1, Off: size - 1}) {
		if p, ok := l.Find(1, last); ok {
			t.Fatalf("%s: %s is at %+v", l, last, p)
		}
	}
}

// TestParts compares with sets of addresses.
func TestParts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var ps Parts
		has := map[uint64]bool{}
		for range rnd.IntN(12) {
			bits := uint8(rnd.IntN(5))
			p := Part{Slot: 3, Off: rnd.Uint64N(64) >> bits << bits, Bits: bits}
			add := rnd.IntN(3) > 0
			if add {
				ps = ps.With(p)
			} else {
				ps = ps.Without(p)
			}
			for a := p.Off; a < p.Off+p.Size(); a++ {
				has[a] = add
			}
		}
		var n uint64
		for a := range uint64(64) {
			if ps.Contain(Part{Slot: 3, Off: a}) != has[a] {
				t.Fatalf("address %d in %v: want %t", a, ps, has[a])
			}
			if has[a] {
				n++
			}
		}
		if ps.Size() != n {
			t.Fatalf("%v: %d addresses, want %d", ps, ps.Size(), n)
		}
		owners := Owners{}.Set("a", ps)
		back, err := ParseOwners(3, 6, owners.String())
		if err != nil || back.String() != owners.String() {
			t.Fatalf("%q: %q, %v", owners, back, err)
		}
	}
}

func FuzzParseOwners(f *testing.F) {
	f.Add("0/2 a\n4/1 b\n")
	f.Add("0/6 a\n")
	f.Fuzz(func(t *testing.T, s string) {
		owners, err := ParseOwners(1, 6, s)
		if err != nil {
			return
		}
		seen := map[uint64]string{}
		for h, ps := range owners {
			if !IsHost(h) {
				t.Fatalf("host %q", h)
			}
			for _, p := range ps {
				if p.Slot != 1 || p.Off+p.Size() > 64 {
					t.Fatalf("part %+v", p)
				}
				for a := p.Off; a < p.Off+p.Size(); a++ {
					if seen[a] != "" {
						t.Fatalf("%d is of %s and %s", a, seen[a], h)
					}
					seen[a] = h
				}
			}
		}
	})
}

func FuzzParseLayout(f *testing.F) {
	f.Add("4 10.0.0.0/24;fd00::/64")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLayout(s)
		if err == nil && l.Slots() == 0 {
			t.Fatalf("%q has no slots", s)
		}
	})
}
