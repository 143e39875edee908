package slot

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Part is a power of two of addresses in a slot, aligned: a half, a quarter, one.
type Part struct {
	Slot uint64
	Off  uint64 // of the first address, in the slot
	Bits uint8  // it has 1<<Bits addresses
}

// Size returns the number of addresses of each set.
func (p Part) Size() uint64 { return 1 << p.Bits }

// Contains reports whether all of o is in p.
func (p Part) Contains(o Part) bool {
	return p.Slot == o.Slot && o.Bits <= p.Bits && o.Off>>p.Bits == p.Off>>p.Bits
}

// Overlaps reports whether the two have an address in common.
func (p Part) Overlaps(o Part) bool { return p.Contains(o) || o.Contains(p) }

// Halves returns the two halves of a part that has more than one address.
func (p Part) Halves() [2]Part {
	return [2]Part{{p.Slot, p.Off, p.Bits - 1}, {p.Slot, p.Off | 1<<(p.Bits-1), p.Bits - 1}}
}

// Parts is parts without overlaps, in order, as large as they can be.
type Parts []Part

// Compare orders parts by their places.
func (p Part) Compare(o Part) int {
	return cmp.Or(cmp.Compare(p.Slot, o.Slot), cmp.Compare(p.Off, o.Off))
}

// With returns the parts and p.
func (ps Parts) With(p Part) Parts {
	out := slices.DeleteFunc(slices.Clone(ps), p.Contains)
	if !slices.ContainsFunc(out, func(o Part) bool { return o.Contains(p) }) {
		out = append(out, p)
	}
	slices.SortFunc(out, Part.Compare)
	return out.merged()
}

// merged joins two halves of one part.
func (ps Parts) merged() Parts {
	for i := 0; i+1 < len(ps); i++ {
		a, b := ps[i], ps[i+1]
		if a.Slot == b.Slot && a.Bits == b.Bits && a.Off>>a.Bits&1 == 0 && a.Off|1<<a.Bits == b.Off {
			ps = slices.Replace(ps, i, i+2, Part{a.Slot, a.Off, a.Bits + 1})
			i = -1
		}
	}
	return ps
}

// Without returns the parts less p.
func (ps Parts) Without(p Part) Parts {
	var out Parts
	for _, o := range ps {
		out = append(out, o.without(p)...)
	}
	return out
}

func (p Part) without(o Part) Parts {
	switch {
	case o.Contains(p):
		return nil
	case !p.Contains(o):
		return Parts{p}
	}
	h := p.Halves()
	return append(h[0].without(o), h[1].without(o)...)
}

// Minus returns the parts less all of others.
func (ps Parts) Minus(others Parts) Parts {
	for _, o := range others {
		ps = ps.Without(o)
	}
	return ps
}

// Contain reports whether all of p is in one of the parts.
func (ps Parts) Contain(p Part) bool {
	return slices.ContainsFunc(ps, func(o Part) bool { return o.Contains(p) })
}

// Overlap reports whether p has an address in common with one of the parts.
func (ps Parts) Overlap(p Part) bool { return slices.ContainsFunc(ps, p.Overlaps) }

// Size returns the number of addresses of each set, or the largest number.
func (ps Parts) Size() (n uint64) {
	for _, p := range ps {
		if n += p.Size(); n < p.Size() {
			return 1<<64 - 1
		}
	}
	return n
}

// Owners is who owns which parts of one slot. What it does not name is free.
type Owners map[string]Parts

// maxOwners bounds what is read of a slot.
const maxOwners = 4096

// ParseOwners reads the value of a slot: a line "OFFSET/BITS HOST" for each part.
// What it returns has no overlaps and fits in the slot, whoever wrote it.
func ParseOwners(slot uint64, bits uint8, text string) (Owners, error) {
	owners, all := Owners{}, Parts{}
	for line := range strings.Lines(text) {
		if len(all) == maxOwners {
			return nil, fmt.Errorf("slot %d: more than %d parts", slot, maxOwners)
		}
		p, host, err := parseLine(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("slot %d: %w", slot, err)
		}
		p.Slot = slot
		if p.Bits > bits || p.Off>>bits != 0 || p.Off&(1<<p.Bits-1) != 0 {
			return nil, fmt.Errorf("slot %d: part %d/%d does not fit", slot, p.Off, p.Bits)
		}
		if len(all) > 0 && (all[len(all)-1].Compare(p) >= 0 || all[len(all)-1].Overlaps(p)) {
			return nil, fmt.Errorf("slot %d: part %d/%d is out of order", slot, p.Off, p.Bits)
		}
		all = append(all, p)
		owners[host] = append(owners[host], p)
	}
	for h, ps := range owners {
		owners[h] = ps.merged()
	}
	return owners, nil
}

func parseLine(line string) (p Part, host string, err error) {
	where, host, ok := strings.Cut(line, " ")
	off, size, ok2 := strings.Cut(where, "/")
	if !ok || !ok2 || !IsHost(host) {
		return p, "", fmt.Errorf("line %.300q: want OFFSET/BITS HOST", line)
	}
	if p.Off, err = strconv.ParseUint(off, 10, 64); err != nil {
		return p, "", err
	}
	n, err := strconv.ParseUint(size, 10, 6)
	if err != nil || n > maxBits {
		return p, "", fmt.Errorf("line %.300q: size", line)
	}
	p.Bits = uint8(n)
	return p, host, nil
}

// maxHost bounds the name of a host, as DNS does.
const maxHost = 253

// IsHost reports whether s can be the name of a host: letters, digits, '.', '_' and
// '-', the first not one of the last three.
func IsHost(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '-' || c == '_'):
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxHost
}

// String is the value of the slot, "" where nothing of it is owned.
func (o Owners) String() string {
	type row struct {
		Part
		host string
	}
	var rows []row
	for h, ps := range o {
		for _, p := range ps {
			rows = append(rows, row{p, h})
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return a.Compare(b.Part) })
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%d/%d %s\n", r.Off, r.Bits, r.host)
	}
	return b.String()
}

// Free returns what of the whole slot has no owner.
func (o Owners) Free(whole Part) Parts {
	free := Parts{whole}
	for _, ps := range o {
		free = free.Minus(ps)
	}
	return free
}

// Set returns the owners with the host's parts replaced.
func (o Owners) Set(host string, ps Parts) Owners {
	out := Owners{}
	for h, had := range o {
		if h != host {
			out[h] = had
		}
	}
	if len(ps) > 0 {
		out[host] = ps
	}
	return out
}

// Owner returns who owns a part that has one address, "" where it is free.
func (o Owners) Owner(p Part) string {
	for h, ps := range o {
		if ps.Contain(p) {
			return h
		}
	}
	return ""
}
