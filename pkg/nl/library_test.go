package nl_test

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
)

// library opens the field's library in ns. It reads what this package wrote, and
// writes what this package reads, with code of its own.
func library(t *testing.T, bed *nltest.Bed, ns *netns.NS) *netlink.Handle {
	t.Helper()
	var h *netlink.Handle
	var err error
	bed.In(ns, func() { h, err = netlink.NewHandle(unix.NETLINK_ROUTE) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// The library reads addresses, routes, rules and neighbours as they were written.
func TestLibraryReads(t *testing.T) {
	bed, c, index := dial(t)
	h := library(t, bed, bed.Sandbox)
	mac, err := net.ParseMAC("02:00:00:00:00:05")
	if err == nil {
		err = c.Do(
			nl.AddAddr(nl.Addr{Index: index, Prefix: prefix("10.1.0.2/16")}),
			nl.AddAddr(nl.Addr{Index: index, Prefix: prefix("fd00:1::2/64"), Flags: unix.IFA_F_NODAD}),
			nl.AddRoute(nl.Route{Dst: prefix("0.0.0.0/0"), Gateway: addr("10.1.0.1"), Index: index, Table: 100, Priority: 7, MTU: 1300, AdvMSS: 1200}),
			nl.AddRoute(nl.Route{Dst: prefix("2001:db8::/32"), Gateway: addr("fd00:1::1"), Index: index, Table: 70000, Source: addr("fd00:1::2")}),
			nl.AddRule(nl.From(addr("10.1.0.2"), 100)),
			nl.SetNeigh(nl.Neigh{Index: index, IP: addr("10.1.0.5"), MAC: mac, State: unix.NUD_PERMANENT}))
	}
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"10.1.0.2/16 brd 10.1.255.255", "fd00:1::2/64 brd <nil>",
		"0.0.0.0/0 via 10.1.0.1 src <nil> table 100 priority 7 mtu 1300 advmss 1200 protocol 3 type 1",
		"2001:db8::/32 via fd00:1::1 src fd00:1::2 table 70000 priority 1024 mtu 0 advmss 0 protocol 3 type 1",
		"from 10.1.0.2/32 lookup 100", "10.1.0.5 is at 02:00:00:00:00:05, state 128",
	}
	if diff := cmp.Diff(want, seen(t, h, index)); diff != "" {
		t.Errorf("the library reads (-written +read):\n%s", diff)
	}
}

// seen is what the library reads of a link and of the tables from 100 on.
func seen(t *testing.T, h *netlink.Handle, index int) (all []string) {
	t.Helper()
	link, err := h.LinkByIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			all = append(all, fmt.Sprintf("%s brd %v", a.IPNet, a.Broadcast))
		}
	}
	for _, table := range []int{100, 70000} {
		routes, err := h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			all = append(all, fmt.Sprintf("%s via %s src %v table %d priority %d mtu %d advmss %d protocol %d type %d",
				r.Dst, r.Gw, r.Src, r.Table, r.Priority, r.MTU, r.AdvMSS, r.Protocol, r.Type))
		}
	}
	rules, err := h.RuleList(netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Table == 100 {
			all = append(all, fmt.Sprintf("from %s lookup %d", r.Src, r.Table))
		}
	}
	neighs, err := h.NeighList(index, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range neighs {
		all = append(all, fmt.Sprintf("%s is at %s, state %d", n.IP, n.HardwareAddr, n.State))
	}
	return all
}

// Links, addresses and routes that the library writes are read as they are.
func TestLibraryWrites(t *testing.T) {
	bed, c, index := dial(t)
	h := library(t, bed, bed.Sandbox)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", MTU: 1400, Alias: "a bridge"}}
	if err := h.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	l, err := c.LinkByName("br0")
	if err != nil || l.Kind != "bridge" || l.MTU != 1400 || l.Index != bridge.Index || l.Up() {
		t.Errorf("read %+v, %v", l, err)
	}
	d0, err := h.LinkByIndex(index)
	if err == nil {
		err = h.AddrAdd(d0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 1, 0, 2), Mask: net.CIDRMask(16, 32)}})
	}
	if err == nil {
		err = h.LinkSetMaster(d0, bridge)
	}
	if err == nil {
		_, dst, _ := net.ParseCIDR("192.0.2.0/24")
		err = h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: dst, Gw: net.IPv4(10, 1, 0, 1), Table: 300, Priority: 9, MTU: 1280})
	}
	if err != nil {
		t.Fatal(err)
	}
	if l, err = c.LinkByIndex(index); err != nil || l.Master != bridge.Index || l.PortKind != "bridge" {
		t.Errorf("read %+v, %v", l, err)
	}
	addrs, err := c.Addrs(index)
	if err != nil || !slices.ContainsFunc(addrs, func(a nl.Addr) bool { return a.Prefix == prefix("10.1.0.2/16") }) {
		t.Errorf("read %v, %v", addrs, err)
	}
	routes, err := c.Routes(300)
	want := nl.Route{
		Dst: prefix("192.0.2.0/24"), Gateway: addr("10.1.0.1"), Index: index, Table: 300, Priority: 9, MTU: 1280,
		Protocol: unix.RTPROT_BOOT, Type: unix.RTN_UNICAST,
	}
	if err != nil || !slices.Equal(routes, []nl.Route{want}) {
		t.Errorf("read %+v, %v, want %+v", routes, err, want)
	}
}
