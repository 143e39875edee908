package lease

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"golang.org/x/sys/unix"
)

// An index is a block of memory, usually mapped from a file, with what a call
// wants to know of a lease directory without reading it: which addresses an
// owner holds, and which addresses are taken. Nothing in it is trusted beyond
// its bounds, since any bytes may come from the file.
//
//	header   one page: what the index is of, and what proves that it still is
//	owners   buckets of chains of entries {hash of the owner, address}
//	tree     a hash table of nodes of 256 bits (see tree.go)
//
// All numbers are little-endian.
type index struct {
	mem     []byte
	mapped  bool
	owners  []byte // entries
	buckets []byte // entry numbers from 1 on; 0 is none
	nodes   []byte
}

const (
	indexMagic   = "netcleat"
	indexVersion = 1

	headerSize = 4096
	entrySize  = 32
	nodeSize   = 48

	// Offsets in the header.
	atMagic   = 0
	atVersion = 8
	atFlags   = 12
	atProof   = 16 // dev, ino, mtime (s, ns), ctime (s, ns)
	atBoot    = 64 // boot and machine
	atSeed    = 80
	atEntries = 88  // capacity
	atFree    = 96  // head of the list of entries that were given back
	atFresh   = 104 // entries from here on were never used
	atNodes   = 112 // capacity
	atUsed    = 120 // nodes in use
	atPathLen = 128
	atPath    = 136

	maxPath = headerSize - atPath
	// maxCapacity bounds what a header may claim.
	maxCapacity = 1 << 26
)

// Flags of the header.
const (
	flagKeptOld = 1 << iota // leases of an earlier boot were seen and kept
)

var (
	errFull    = errors.New("index is full")
	errCorrupt = errors.New("index is corrupt")
)

// sized returns an empty index in memory with room for n entries and nodes
// nodes.
func sized(n, nodes int) *index {
	entries := uint64(max(256, n))
	slots := uint64(1) << bits.Len64(uint64(max(32, nodes)*2-1))
	mem := make([]byte, headerSize+entries*(entrySize+4)+slots*nodeSize)
	copy(mem, indexMagic)
	x := &index{mem: mem}
	binary.LittleEndian.PutUint32(mem[atVersion:], indexVersion)
	x.put(atEntries, entries)
	x.put(atNodes, slots)
	x.slice()
	return x
}

// load checks the header of an index that was read or mapped.
func load(mem []byte) (*index, error) {
	if len(mem) < headerSize || string(mem[:len(indexMagic)]) != indexMagic || binary.LittleEndian.Uint32(mem[atVersion:]) != indexVersion {
		return nil, errCorrupt
	}
	x := &index{mem: mem}
	e, n := x.get(atEntries), x.get(atNodes)
	switch {
	case e == 0 || e > maxCapacity || n == 0 || n > maxCapacity || bits.OnesCount64(n) != 1,
		uint64(len(mem)) != headerSize+e*(entrySize+4)+n*nodeSize,
		x.get(atFree) > e || x.get(atFresh) > e || x.get(atUsed) >= n || x.get(atPathLen) > maxPath:
		return nil, errCorrupt
	}
	x.slice()
	return x, nil
}

func (x *index) slice() {
	e := x.get(atEntries)
	x.owners = x.mem[headerSize:][:e*entrySize]
	x.buckets = x.mem[headerSize+e*entrySize:][:e*4]
	x.nodes = x.mem[headerSize+e*(entrySize+4):]
}

func (x *index) close() error {
	if !x.mapped {
		return nil
	}
	return unix.Munmap(x.mem)
}

func (x *index) get(at int) uint64    { return binary.LittleEndian.Uint64(x.mem[at:]) }
func (x *index) put(at int, v uint64) { binary.LittleEndian.PutUint64(x.mem[at:], v) }

func (x *index) path() string { return string(x.mem[atPath:][:x.get(atPathLen)]) }

func (x *index) setPath(p string) {
	x.put(atPathLen, uint64(copy(x.mem[atPath:], p)))
}

// hash is FNV-1a with a seed, so that nobody can choose owners that share a
// chain, and a final mix.
func (x *index) hash(s string) uint64 {
	h := x.get(atSeed) ^ 14695981039346656037
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// An entry is 8 bytes hash, 16 bytes address, 4 bytes number of the next.
func (x *index) entry(n uint32) []byte { return x.owners[uint64(n-1)*entrySize:][:entrySize] }

func (x *index) bucket(hash uint64) []byte {
	slot, _ := bits.Mul64(hash, x.get(atEntries))
	return x.buckets[slot*4:][:4]
}

// held calls fn with each address that an owner with the hash may hold.
func (x *index) held(hash uint64, fn func(addr [16]byte)) error {
	next := binary.LittleEndian.Uint32(x.bucket(hash))
	for range x.get(atEntries) + 1 {
		if next == 0 {
			return nil
		}
		if uint64(next) > x.get(atEntries) {
			return errCorrupt
		}
		e := x.entry(next)
		if binary.LittleEndian.Uint64(e) == hash {
			fn([16]byte(e[8:24]))
		}
		next = binary.LittleEndian.Uint32(e[24:])
	}
	return errCorrupt
}

// all calls fn with every entry.
func (x *index) all(fn func(hash uint64, addr [16]byte)) error {
	steps := x.get(atEntries)
	for b := 0; b < len(x.buckets); b += 4 {
		next := binary.LittleEndian.Uint32(x.buckets[b:])
		for ; next != 0; steps-- {
			if uint64(next) > x.get(atEntries) || steps == 0 {
				return errCorrupt
			}
			e := x.entry(next)
			fn(binary.LittleEndian.Uint64(e), [16]byte(e[8:24]))
			next = binary.LittleEndian.Uint32(e[24:])
		}
	}
	return nil
}

// add records a lease. errFull asks for a larger index.
func (x *index) add(hash uint64, addr [16]byte) error {
	if err := x.mark(addr); err != nil {
		return err
	}
	n, err := x.unused()
	if err != nil {
		return err
	}
	e, b := x.entry(n), x.bucket(hash)
	binary.LittleEndian.PutUint64(e, hash)
	copy(e[8:24], addr[:])
	copy(e[24:28], b)
	binary.LittleEndian.PutUint32(b, n)
	return nil
}

// unused returns the number of an entry for use.
func (x *index) unused() (uint32, error) {
	if n := uint32(x.get(atFree)); n != 0 {
		next := uint64(binary.LittleEndian.Uint32(x.entry(n)[24:]))
		if next > x.get(atEntries) {
			return 0, errCorrupt
		}
		x.put(atFree, next)
		return n, nil
	}
	n := x.get(atFresh) + 1
	if n > x.get(atEntries) {
		return 0, errFull
	}
	x.put(atFresh, n)
	return uint32(n), nil
}

// drop forgets a lease. One that is not there is none.
func (x *index) drop(hash uint64, addr [16]byte) error {
	x.unmark(addr)
	link := x.bucket(hash)
	for range x.get(atEntries) + 1 {
		n := binary.LittleEndian.Uint32(link)
		if n == 0 {
			return nil
		}
		if uint64(n) > x.get(atEntries) {
			return errCorrupt
		}
		e := x.entry(n)
		if binary.LittleEndian.Uint64(e) == hash && [16]byte(e[8:24]) == addr {
			copy(link, e[24:28])
			binary.LittleEndian.PutUint32(e[24:], uint32(x.get(atFree)))
			x.put(atFree, uint64(n))
			return nil
		}
		link = e[24:28]
	}
	return errCorrupt
}

// grown returns a copy with room for twice as much.
func (x *index) grown() (*index, error) {
	y := sized(2*int(x.get(atEntries)), 2*int(x.get(atNodes)))
	entries, nodes := y.get(atEntries), y.get(atNodes)
	copy(y.mem[:headerSize], x.mem)
	y.put(atEntries, entries)
	y.put(atNodes, nodes)
	for _, at := range []int{atFree, atFresh, atUsed} {
		y.put(at, 0)
	}
	y.setProof(proof{})
	var errs []error
	err := x.all(func(hash uint64, addr [16]byte) { errs = append(errs, y.add(hash, addr)) })
	x.marked(func(addr [16]byte) { errs = append(errs, y.mark(addr)) })
	return y, errors.Join(append(errs, err)...)
}
