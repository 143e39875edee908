package ipmath

import (
	"net/netip"
	"testing"
)

func TestLast(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.1.0.0/16": "10.1.255.255", "10.1.2.128/25": "10.1.2.255", "10.1.2.3/32": "10.1.2.3", "0.0.0.0/0": "255.255.255.255",
		"fd00::/64": "fd00::ffff:ffff:ffff:ffff", "fd00::80/121": "fd00::ff", "::/0": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	} {
		if got := Last(netip.MustParsePrefix(prefix)); got.String() != want {
			t.Errorf("%s: got %s, want %s", prefix, got, want)
		}
	}
}

func TestHalves(t *testing.T) {
	for a, want := range map[string][2]uint64{
		"10.1.2.3": {0, 0xffff0a010203}, "fd00:1::2": {0xfd00000100000000, 2}, "::": {0, 0},
	} {
		if hi, lo := Halves(netip.MustParseAddr(a)); hi != want[0] || lo != want[1] {
			t.Errorf("%s: got %x %x, want %x", a, hi, lo, want)
		}
	}
}
