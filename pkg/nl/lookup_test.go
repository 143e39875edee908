package nl_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
)

// The default route is the main table's, of either family, also where some of
// the world goes another way.
func TestDefaultRoute(t *testing.T) {
	for routes, want := range map[string]string{
		"":                                   "",
		"route add default via 10.1.0.1":     "0.0.0.0/0 via 10.1.0.1",
		"-6 route add default via fd00:1::1": "::/0 via fd00:1::1",
		"-6 route add default via fd00:1::1;route add default via 10.1.0.1":                           "0.0.0.0/0 via 10.1.0.1",
		"route add default via 10.1.0.1;route add 128.0.0.0/1 dev vpn0":                               "0.0.0.0/0 via 10.1.0.1",
		"route add default via 10.1.0.1;route add default dev vpn0 table 7;rule add from all table 7": "0.0.0.0/0 via 10.1.0.1",
		"route add default dev vpn0 table 7;rule add from all table 7":                                "",
		"route add unreachable default":                                                               "",
		"route add default via 10.1.0.1 metric 9;route add default via 10.1.0.2 metric 2":             "0.0.0.0/0 via 10.1.0.2",
		"route add default nexthop via 10.1.0.1 dev up0 weight 1 nexthop via 10.1.0.2 dev up0":        "0.0.0.0/0 via 10.1.0.1",
		"route add 128.0.0.0/1 dev vpn0;-6 route add default via fd00:1::1;route add 10/8 dev up0":    "::/0 via fd00:1::1",
	} {
		t.Run(routes, func(t *testing.T) {
			bed := nltest.New(t)
			bed.NewLAN("up0")
			bed.IP("link", "add", "vpn0", "type", "veth", "peer", "name", "vpn1")
			bed.IP("link", "set", "vpn0", "up")
			bed.IP("addr", "add", "10.1.0.9/16", "dev", "up0")
			bed.IP("addr", "add", "fd00:1::9/64", "dev", "up0", "nodad")
			for cmd := range strings.SplitSeq(routes, ";") {
				if cmd != "" {
					bed.IP(strings.Fields(cmd)...)
				}
			}
			c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			r, err := c.DefaultRoute()
			got := ""
			if err == nil {
				got, _, _ = strings.Cut(r.String(), " table")
			} else if !nl.NoRoute(err) {
				t.Error(err)
			}
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// The way to an address is found also after addresses were listed, which makes
// the kernel strict about what else is asked on the same socket.
func TestRouteToAfterDump(t *testing.T) {
	bed := nltest.New(t)
	bed.NewLAN("up0")
	bed.IP("addr", "add", "10.1.0.9/16", "dev", "up0")
	bed.IP("addr", "add", "fd00:1::9/64", "dev", "up0", "nodad")
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Addrs(0); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{"10.1.0.5": "10.1.0.0/16 table 254", "fd00:1::5": "fd00:1::/64 table 254"} {
		r, err := c.RouteTo(netip.MustParseAddr(addr))
		if err != nil || r.String() != want {
			t.Errorf("route to %s: %s, %v; want %s", addr, r, err, want)
		}
	}
}

// Neighbours are listed as they were set, those of bridges with the port.
func TestNeighs(t *testing.T) {
	bed := nltest.New(t)
	bed.NewLAN("up0")
	bed.IP("link", "add", "br0", "type", "bridge")
	bed.IP("link", "add", "p0", "type", "veth", "peer", "name", "p1")
	bed.IP("link", "set", "p0", "master", "br0")
	bed.IP("neigh", "add", "10.1.0.5", "lladdr", "02:00:00:00:00:05", "dev", "up0", "nud", "permanent")
	bed.IP("-6", "neigh", "add", "fd00:1::5", "lladdr", "02:00:00:00:00:06", "dev", "up0", "nud", "permanent")
	bed.Run("bridge", "fdb", "add", "02:00:00:00:00:07", "dev", "p0", "master", "static")
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for family, mac := range map[uint8]string{unix.AF_INET: "02:00:00:00:00:05", unix.AF_INET6: "02:00:00:00:00:06", unix.AF_BRIDGE: "02:00:00:00:00:07"} {
		all, err := c.Neighs(family)
		i := slices.IndexFunc(all, func(n nl.Neigh) bool { return n.MAC.String() == mac })
		if err != nil || i < 0 || (all[i].Bridge != 0) != (family == unix.AF_BRIDGE) || all[i].Index == 0 {
			t.Errorf("family %d: %v, %v; want %s", family, all, err, mac)
		}
	}
}
