package lease

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// model is what an index must agree with.
type model struct {
	of    map[string]map[netip.Addr]bool
	taken map[netip.Addr]bool
}

// pools are where the random addresses come from: dense, sparse, both families,
// and the ends of the address spaces.
var pools = []struct {
	first netip.Addr
	span  uint64
}{
	{netip.MustParseAddr("10.0.0.0"), 700},
	{netip.MustParseAddr("10.0.255.200"), 400},
	{netip.MustParseAddr("255.255.254.0"), 512},
	{netip.MustParseAddr("fd00::"), 300},
	{netip.MustParseAddr("fd00::1:0"), 1 << 40},
	{netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fe00"), 512},
}

func randomAddr(r *rand.Rand) netip.Addr {
	p := pools[r.IntN(len(pools))]
	return plus(p.first, r.Uint64N(p.span))
}

func plus(a netip.Addr, n uint64) netip.Addr {
	b := a.As16()
	for i := 15; i >= 0 && n > 0; i-- {
		n += uint64(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	if a.Is4() {
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.AddrFrom16(b)
}

func TestIndexAgreesWithAMap(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 1))
		x := sized(0, 0)
		x.put(atSeed, seed)
		m := model{map[string]map[netip.Addr]bool{}, map[netip.Addr]bool{}}
		for step := range 12000 {
			// Fill up first, then empty.
			grow := r.IntN(100) < 80 == (step < 6000)
			x = m.step(t, x, r, grow)
			if step%1000 == 0 {
				m.compare(t, x, r)
			}
		}
		m.compare(t, x, r)
	}
}

func (m *model) step(t *testing.T, x *index, r *rand.Rand, grow bool) *index {
	t.Helper()
	owner, a := fmt.Sprint("c", r.IntN(500)), randomAddr(r)
	if grow && !m.taken[a] {
		x = added(t, x, owner, a)
		if m.of[owner] == nil {
			m.of[owner] = map[netip.Addr]bool{}
		}
		m.of[owner][a], m.taken[a] = true, true
	}
	if !grow {
		for a := range m.of[owner] {
			if err := x.drop(x.hash(owner), a.As16()); err != nil {
				t.Fatal(err)
			}
			delete(m.of[owner], a)
			delete(m.taken, a)
			break
		}
	}
	return x
}

func added(t *testing.T, x *index, owner string, a netip.Addr) *index {
	t.Helper()
	err := x.add(x.hash(owner), a.As16())
	if errors.Is(err, errFull) {
		if x, err = x.grown(); err == nil {
			err = x.add(x.hash(owner), a.As16())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (m *model) compare(t *testing.T, x *index, r *rand.Rand) {
	t.Helper()
	if _, err := load(x.mem); err != nil {
		t.Fatalf("what it makes it would not load: %v", err)
	}
	n := 0
	for owner, addrs := range m.of {
		got := map[netip.Addr]bool{}
		if err := x.held(x.hash(owner), func(a [16]byte) { got[netip.AddrFrom16(a).Unmap()] = true }); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(addrs) {
			t.Fatalf("%s holds %v, want %v", owner, got, addrs)
		}
		n += len(addrs)
	}
	if n != len(m.taken) {
		t.Fatal("the model is wrong")
	}
	for range 200 {
		a := randomAddr(r)
		if x.taken(a.As16()) != m.taken[a] {
			t.Fatalf("%s is taken: %t, want %t", a, !m.taken[a], m.taken[a])
		}
		m.compareRange(t, x, a, r.Uint64N(900))
	}
}

// compareRange compares the first free address and the number of taken ones.
func (m *model) compareRange(t *testing.T, x *index, first netip.Addr, span uint64) {
	t.Helper()
	last := plus(first, span)
	if last.Less(first) || !last.Is4() && first.Is4() {
		return // beyond the end of all addresses
	}
	var free netip.Addr
	var held uint64
	for a := first; a.IsValid() && !last.Less(a); a = a.Next() {
		if m.taken[a] {
			held++
		} else if !free.IsValid() {
			free = a
		}
	}
	got, ok := x.free(first, last)
	if ok != free.IsValid() || ok && got != free {
		t.Fatalf("first free of %s-%s: %s, want %s", first, last, got, free)
	}
	if n := x.countTaken(first, last); n != held {
		t.Fatalf("%d of %s-%s are taken, want %d", n, first, last, held)
	}
}

func TestFindsTheOneFreeAddress(t *testing.T) {
	x := sized(0, 1024)
	first, last := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.255.254")
	free := netip.MustParseAddr("10.1.200.77")
	for a := first; !last.Less(a); a = a.Next() {
		if a != free {
			if err := x.mark(a.As16()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, ok := x.free(first, last); !ok || got != free {
		t.Errorf("found %s, %t; want %s", got, ok, free)
	}
	if err := x.mark(free.As16()); err != nil {
		t.Fatal(err)
	}
	if got, ok := x.free(first, last); ok {
		t.Errorf("found %s in a full range", got)
	}
}

// FuzzIndex loads any bytes as an index. Whatever they say, the index must
// neither panic nor run on for ever.
func FuzzIndex(f *testing.F) {
	x := sized(0, 0)
	for i := range 100 {
		if err := x.add(x.hash(fmt.Sprint(i)), plus(pools[0].first, uint64(i)).As16()); err != nil {
			f.Fatal(err)
		}
	}
	f.Add([]byte{}, uint16(0))
	f.Add([]byte("netcleat"), uint16(0))
	f.Add([]byte{1, 0, 0, 0}, uint16(headerSize+24))
	f.Add([]byte{255, 255, 255, 255}, uint16(atFree))
	f.Fuzz(func(t *testing.T, patch []byte, at uint16) {
		mem := append([]byte(nil), x.mem...)
		copy(mem[min(int(at), len(mem)):], patch)
		y, err := load(mem)
		if err != nil {
			return
		}
		a := plus(pools[0].first, 7)
		_ = y.held(y.hash("7"), func([16]byte) {})
		_ = y.all(func(uint64, [16]byte) {})
		_ = y.add(y.hash("new"), a.As16())
		_ = y.drop(y.hash("7"), a.As16())
		_, _ = y.free(pools[0].first, pools[1].first)
		_ = y.countTaken(pools[0].first, pools[1].first)
		_, _ = y.grown()
		_ = y.path()
	})
}
