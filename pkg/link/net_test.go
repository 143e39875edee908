package link_test

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

func subnet(t *testing.T, s string) net.IPNet {
	t.Helper()
	addr, n, err := net.ParseCIDR(s)
	if err != nil {
		t.Fatal(err)
	}
	return net.IPNet{IP: addr, Mask: n.Mask}
}

func prefixOf(s string) netip.Prefix {
	a := netip.MustParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen())
}

func inAMinute() time.Time { return time.Now().Add(time.Minute) }
