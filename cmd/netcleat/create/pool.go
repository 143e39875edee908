package create

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/pkg/ipmath"
)

// held is a part of the address space that is somebody's.
type held struct {
	Prefix netip.Prefix
	By     string // in words
	Link   string // of the host that leads there; "" is none
}

// pools are what subnets are taken from that nobody names. The first holds none
// of the usual subnets of clusters, runtimes and clouds; the others are for hosts
// that have a route to all of 10.0.0.0/8.
var pools = []netip.Prefix{
	netip.MustParsePrefix("10.176.0.0/12"),
	netip.MustParsePrefix("172.24.0.0/14"),
	netip.MustParsePrefix("192.168.0.0/16"),
}

// The sizes of subnets that nobody names: podman's and nerdctl's, and the only
// one that IPv6 knows.
const (
	bits4 = 24
	bits6 = 64
)

// overlapping returns the first of what is held that overlaps with the prefix.
func overlapping(all []held, p netip.Prefix) (held, bool) {
	for _, h := range all {
		if h.Prefix.Overlaps(p) {
			return h, true
		}
	}
	return held{}, false
}

// free4 returns a subnet that nobody holds.
func free4(all []held) (netip.Prefix, error) {
	for _, pool := range pools {
		for p := netip.PrefixFrom(pool.Addr(), bits4); pool.Overlaps(p); p = netip.PrefixFrom(ipmath.Last(p).Next(), bits4) {
			if _, taken := overlapping(all, p); !taken {
				return p, nil
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("no free subnet in %v, for the host's addresses, routes and networks: give --subnet", pools)
}

// free6 returns a subnet that nobody holds, of the host's own part of the local
// addresses (RFC 4193). Where in it a network begins to look depends on its name,
// so that one that is made anew gets the same.
func free6(host [5]byte, name string, all []held) (netip.Prefix, error) {
	hash := sha256.Sum256([]byte(name))
	first := binary.BigEndian.Uint16(hash[:])
	a := [16]byte{0: 0xfd}
	copy(a[1:], host[:])
	for i := range 1 << 16 {
		binary.BigEndian.PutUint16(a[6:], first+uint16(i))
		p := netip.PrefixFrom(netip.AddrFrom16(a), bits6)
		if _, taken := overlapping(all, p); !taken {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("no free IPv6 subnet in %s: give --subnet", netip.PrefixFrom(netip.AddrFrom16(a), 48).Masked())
}

// span is addresses from first to last.
type span struct{ first, last netip.Addr }

// spans returns the addresses of a subnet that containers get, where the gateway
// is left out by host-local.
func (n *subnet) spans() ([]span, error) {
	of := n.Prefix
	if n.Range.IsValid() {
		of = n.Range
	}
	s := span{of.Addr(), ipmath.Last(of)}
	if s.first == n.Prefix.Addr() {
		s.first = s.first.Next()
	}
	if s.last.Is4() && s.last == ipmath.Last(n.Prefix) {
		s.last = s.last.Prev()
	}
	all := []span{s}
	for _, a := range n.Omit {
		all = without(all, a)
	}
	gateway := n.Gateway
	if !gateway.IsValid() {
		gateway = n.Prefix.Addr().Next() // as host-local has it
	}
	all = slices.DeleteFunc(all, func(s span) bool { return s.first == s.last && s.first == gateway })
	if len(all) == 0 {
		return nil, fmt.Errorf("subnet %s: no address is left for containers", n.Prefix)
	}
	return all, nil
}

// without returns the spans without one address.
func without(all []span, a netip.Addr) (rest []span) {
	for _, s := range all {
		if a.Less(s.first) || s.last.Less(a) {
			rest = append(rest, s)
			continue
		}
		if s.first.Less(a) {
			rest = append(rest, span{s.first, a.Prev()})
		}
		if a.Less(s.last) {
			rest = append(rest, span{a.Next(), s.last})
		}
	}
	return rest
}
