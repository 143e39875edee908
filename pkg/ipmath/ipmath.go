// Package ipmath is arithmetic on IP addresses and packets that net/netip lacks.
package ipmath

import "net/netip"

// Last returns the last address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		b[i] |= byte(0xff >> min(8, max(0, p.Bits()-8*i)))
	}
	a, _ := netip.AddrFromSlice(b) // it has the length of one
	return a
}

// Halves returns the 128 bits of an address, of which an IPv4 one is the IPv4-mapped.
func Halves(a netip.Addr) (hi, lo uint64) {
	for i, b := range a.As16() {
		if i < 8 {
			hi = hi<<8 | uint64(b)
		} else {
			lo = lo<<8 | uint64(b)
		}
	}
	return hi, lo
}
