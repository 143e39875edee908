package ranges

import (
	"net/netip"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
)

// pairRequests completes requested addresses by those that belong to them.
func (c *Config) pairRequests(wanted []netip.Addr) error {
	if c.Pair == nil {
		return nil
	}
	for i, a := range wanted {
		if !a.IsValid() {
			continue
		}
		first, ok := c.Pair(i, 0, a)
		if !ok || wanted[0].IsValid() && wanted[0] != first {
			return cnierr.Config("requested ip %s: on this network it belongs to %s, not to %s", a, first, wanted[0])
		}
		wanted[0] = first
	}
	return nil
}

// pairsFree reports whether the addresses that belong to one of the first set can be
// handed out, too.
func (a *allocation) pairsFree(n int, ip netip.Addr) bool {
	if a.conf.Pair == nil || n > 0 {
		return true
	}
	for i := 1; i < len(a.sets); i++ {
		other, ok := a.conf.Pair(0, i, ip)
		if !ok {
			return false
		}
		r := a.sets[i].find(other)
		if r == nil || r.Gateway.Addr == other || a.store.IsHeld(other) {
			return false
		}
	}
	return true
}

func addrOf(ip *current.IPConfig) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.Address.IP)
	return a.Unmap()
}
