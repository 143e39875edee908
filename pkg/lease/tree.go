package lease

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// The tree tells which addresses are taken and finds the next free one in a few
// steps, however many are taken and however large the range is.
//
// A node of level 1 has a bit for each of the 256 addresses that share their
// first 15 bytes: set if taken. A node of level n has a bit for each of the 256
// nodes of level n-1 that share its first 16-n bytes: set if that one is full.
// A node without a bit is not stored, so that the tree is as large as what is
// taken, also in a /64. IPv4 addresses are there in their IPv6 form.
//
// A node is stored under its prefix, with its level in the last byte, which no
// prefix reaches.
type nodeKey [16]byte

func keyOf(addr [16]byte, level int) nodeKey {
	var k nodeKey
	copy(k[:16-level], addr[:])
	k[15] = byte(level)
	return k
}

const maxLevel = 15

// slot returns the position of k's node in the table, or of the empty slot where
// it would be. found is false there; ok is false where there is neither.
func (x *index) slot(k nodeKey) (at uint64, found, ok bool) {
	n := x.get(atNodes)
	at = x.home(k)
	for range n {
		switch node := x.nodes[at*nodeSize:][:16]; {
		case nodeKey(node) == k:
			return at, true, true
		case node[15] == 0:
			return at, false, true
		}
		at = (at + 1) & (n - 1)
	}
	return 0, false, false
}

func (x *index) home(k nodeKey) uint64 {
	h := mix(binary.LittleEndian.Uint64(k[:]) ^ x.get(atSeed))
	h = mix(h ^ binary.LittleEndian.Uint64(k[8:]))
	return h & (x.get(atNodes) - 1)
}

// bits returns the 32 bytes of k's node, or nil where it is not stored.
func (x *index) bits(k nodeKey) []byte {
	at, found, _ := x.slot(k)
	if !found {
		return nil
	}
	return x.nodes[at*nodeSize+16:][:32]
}

// mark says that addr is taken.
func (x *index) mark(addr [16]byte) error {
	for level := 1; level <= maxLevel; level++ {
		k := keyOf(addr, level)
		at, found, ok := x.slot(k)
		if !ok {
			return errFull
		}
		if !found {
			if x.get(atUsed)*3 >= x.get(atNodes)*2 {
				return errFull
			}
			x.put(atUsed, x.get(atUsed)+1)
			copy(x.nodes[at*nodeSize:], k[:])
		}
		b := x.nodes[at*nodeSize+16:][:32]
		i := addr[16-level]
		b[i>>3] |= 1 << (i & 7)
		if nextZero(b, 0) < 256 {
			return nil
		}
	}
	return nil
}

// unmark says that addr is free.
func (x *index) unmark(addr [16]byte) {
	for level := 1; level <= maxLevel; level++ {
		at, found, _ := x.slot(keyOf(addr, level))
		if !found {
			return
		}
		b := x.nodes[at*nodeSize+16:][:32]
		wasFull := nextZero(b, 0) == 256
		i := addr[16-level]
		b[i>>3] &^= 1 << (i & 7)
		if isZero(b) {
			x.remove(at)
		}
		if !wasFull {
			return
		}
	}
}

// remove takes a node out of the table and closes the gap, so that what was
// stored behind it for want of a better place is still found.
func (x *index) remove(at uint64) {
	if used := x.get(atUsed); used > 0 {
		x.put(atUsed, used-1)
	}
	mask := x.get(atNodes) - 1
	gap := at
	for i := range mask {
		next := (at + 1 + i) & mask
		node := x.nodes[next*nodeSize:][:nodeSize]
		if node[15] == 0 {
			break
		}
		if (next-x.home(nodeKey(node)))&mask >= (next-gap)&mask {
			copy(x.nodes[gap*nodeSize:][:nodeSize], node)
			gap = next
		}
	}
	clear(x.nodes[gap*nodeSize:][:nodeSize])
}

// taken reports whether addr is marked.
func (x *index) taken(addr [16]byte) bool {
	b := x.bits(keyOf(addr, 1))
	return b != nil && b[addr[15]>>3]&(1<<(addr[15]&7)) != 0
}

// free returns the first address from first to last that is not taken.
func (x *index) free(first, last netip.Addr) (netip.Addr, bool) {
	at, end := first.As16(), last.As16()
	level := 1
	for level <= maxLevel {
		b := x.bits(keyOf(at, level))
		i := 16 - level
		z := nextZero(b, int(at[i]))
		switch {
		case z < 256 && level == 1:
			at[i] = byte(z)
			return fromIndex(at, first), !less(end, at)
		case z < 256:
			// A child that is not full: its first address, if this is not it already.
			if z != int(at[i]) {
				at[i] = byte(z)
				clear(at[i+1:])
			}
			level--
		default:
			// All full from here on: what follows this node.
			if !successor(&at, i-1) {
				return netip.Addr{}, false
			}
			level++
		}
		if less(end, at) {
			return netip.Addr{}, false
		}
	}
	return netip.Addr{}, false
}

// successor makes at the first address behind the prefix of i+1 bytes. There is
// none behind the last.
func successor(at *[16]byte, i int) bool {
	clear(at[i+1:])
	for ; i >= 0; i-- {
		if at[i]++; at[i] != 0 {
			return true
		}
	}
	return false
}

// countTaken returns how many addresses from first to last are taken.
func (x *index) countTaken(first, last netip.Addr) (n uint64) {
	lo, hi := first.As16(), last.As16()
	for at := 0; at < len(x.nodes); at += nodeSize {
		node := x.nodes[at:][:nodeSize]
		if node[15] != 1 {
			continue
		}
		base := [16]byte(node)
		from, to := 0, 255
		switch {
		case [15]byte(base[:]) == [15]byte(lo[:]):
			from = int(lo[15])
		case less(base, lo):
			continue
		}
		base[15] = 0
		switch {
		case [15]byte(base[:]) == [15]byte(hi[:]):
			to = int(hi[15])
		case less(hi, base):
			continue
		}
		n += ones(node[16:], from, to)
	}
	return n
}

// marked calls fn with every address that is taken.
func (x *index) marked(fn func(addr [16]byte)) {
	for at := 0; at < len(x.nodes); at += nodeSize {
		node := x.nodes[at:][:nodeSize]
		if node[15] != 1 {
			continue
		}
		addr := [16]byte(node)
		for i := range 256 {
			if node[16+i>>3]&(1<<(i&7)) != 0 {
				addr[15] = byte(i)
				fn(addr)
			}
		}
	}
}

func ones(b []byte, from, to int) (n uint64) {
	for i := from; i <= to; i++ {
		if b[i>>3]&(1<<(i&7)) != 0 {
			n++
		}
	}
	return n
}

// nextZero returns the first bit from i on that is not set, or 256. Of a node
// that is not stored, none is set.
func nextZero(b []byte, i int) int {
	if b == nil {
		return i
	}
	for i < 256 {
		w := ^binary.LittleEndian.Uint64(b[i>>6<<3:]) >> (i & 63)
		if w != 0 {
			return i + bits.TrailingZeros64(w)
		}
		i = i>>6<<6 + 64
	}
	return 256
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func less(a, b [16]byte) bool { return bytes.Compare(a[:], b[:]) < 0 }

// fromIndex turns an address of the tree into one of like's family.
func fromIndex(a [16]byte, like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.AddrFrom16(a).Unmap()
	}
	return netip.AddrFrom16(a)
}
