package nl_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
)

// dial opens a bed with a link "d0" in its sandbox, up.
func dial(t *testing.T) (*nltest.Bed, *nl.Conn, int) {
	t.Helper()
	bed := nltest.New(t)
	c, err := nl.Dial(bed.Sandbox, unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	bed.SandboxIP("link", "add", "d0", "type", "veth", "peer", "name", "d1")
	bed.SandboxIP("link", "set", "d1", "up")
	l, err := c.LinkByName("d0")
	if err == nil {
		err = c.Do(nl.SetUp(l.Name, l.Index))
	}
	if err != nil {
		t.Fatal(err)
	}
	return bed, c, l.Index
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func TestAddresses(t *testing.T) {
	_, c, index := dial(t)
	for s, flags := range map[string]uint32{"10.1.0.2/16": 0, "10.2.0.2/32": 0, "10.3.0.2/31": 0, "fd00::2/64": unix.IFA_F_NODAD} {
		a := nl.Addr{Index: index, Prefix: prefix(s), Flags: flags}
		if err := c.Do(nl.AddAddr(a)); err != nil {
			t.Fatal(err)
		}
		if err := c.Do(nl.AddAddr(a)); !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s again: %v", s, err)
		}
		have, err := c.Addrs(index)
		if err != nil || !slices.ContainsFunc(have, func(h nl.Addr) bool { return h.Prefix == a.Prefix && h.Index == index }) {
			t.Errorf("%s is not in %v %v", s, have, err)
		}
		if err := errors.Join(c.Do(nl.DelAddr(a)), c.Do(nl.DelAddr(a))); err != nil {
			t.Errorf("delete twice: %v", err)
		}
	}
	all, err := c.Addrs(0)
	if err != nil || slices.ContainsFunc(all, func(a nl.Addr) bool { return !a.Prefix.Addr().IsLinkLocalUnicast() }) {
		t.Errorf("%v %v", all, err)
	}
}

// What is added is read back as it was, and can be deleted.
func TestRoutes(t *testing.T) {
	_, c, index := dial(t)
	if err := c.Do(
		nl.AddAddr(nl.Addr{Index: index, Prefix: prefix("10.1.0.2/16")}),
		nl.AddAddr(nl.Addr{Index: index, Prefix: prefix("fd00:1::2/64"), Flags: unix.IFA_F_NODAD})); err != nil {
		t.Fatal(err)
	}
	for _, r := range []nl.Route{
		{Dst: prefix("0.0.0.0/0"), Gateway: addr("10.1.0.1"), Index: index},
		{Dst: prefix("::/0"), Gateway: addr("fd00:1::1"), Index: index, Priority: 7},
		{Dst: prefix("192.0.2.0/24"), Gateway: addr("10.1.0.1"), Index: index, Table: 100, Priority: 42, MTU: 1200, AdvMSS: 1100},
		{Dst: prefix("192.0.2.0/24"), Gateway: addr("10.1.0.1"), Index: index, Table: 100000},
		{Dst: prefix("2001:db8::/32"), Gateway: addr("fd00:1::1"), Index: index, Table: 100000, Priority: 5, MTU: 1300},
		{Dst: prefix("198.51.100.0/24"), Gateway: addr("203.0.113.1"), Index: index, OnLink: true},
		{Dst: prefix("198.51.101.7/32"), Index: index, Scope: unix.RT_SCOPE_LINK, Source: addr("10.1.0.2")},
		{Dst: prefix("198.51.102.0/24"), Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_STATIC},
	} {
		if err := c.Do(nl.AddRoute(r)); err != nil {
			t.Errorf("%s: %v", r, err)
			continue
		}
		if err := c.Do(nl.AddRoute(r)); !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s again: %v", r, err)
		}
		want := r
		if want.Table == 0 {
			want.Table = unix.RT_TABLE_MAIN
		}
		if want.Protocol == 0 {
			want.Protocol = unix.RTPROT_BOOT
		}
		if want.Type == 0 {
			want.Type = unix.RTN_UNICAST
		}
		have, err := c.Routes(want.Table)
		if err != nil || !slices.Contains(have, want) {
			t.Errorf("%+v is not in %+v %v", want, have, err)
		}
		if err := c.Do(nl.ReplaceRoute(r)); err != nil {
			t.Errorf("replace %s: %v", r, err)
		}
		if err := errors.Join(c.Do(nl.DelRoute(r)), c.Do(nl.DelRoute(r))); err != nil {
			t.Errorf("delete %s twice: %v", r, err)
		}
	}
}

func TestMultipath(t *testing.T) {
	bed, c, index := dial(t)
	bed.SandboxIP("addr", "add", "10.1.0.2/16", "dev", "d0")
	bed.SandboxIP("route", "add", "192.0.2.0/24", "nexthop", "via", "10.1.0.1", "nexthop", "via", "203.0.113.9", "dev", "d0", "onlink")
	have, err := c.Routes(0)
	var got []string
	for _, r := range have {
		if r.Dst == prefix("192.0.2.0/24") {
			got = append(got, fmt.Sprint(r.Gateway, " ", r.OnLink, " ", r.Index == index))
		}
	}
	if want := []string{"10.1.0.1 false true", "203.0.113.9 true true"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("hops %q %v, want %q", got, err, want)
	}
}

func TestRules(t *testing.T) {
	_, c, _ := dial(t)
	for _, r := range []nl.Rule{nl.From(addr("10.1.0.2"), 100), nl.From(addr("fd00::2"), 100000), {Src: prefix("10.0.0.0/8"), Table: 7, Priority: 99}, {Table: 8, IPv6: true, Priority: 98}} {
		if err := c.Do(nl.AddRule(r)); err != nil {
			t.Fatal(err)
		}
		have, err := c.Rules()
		if err != nil || !slices.ContainsFunc(have, func(h nl.Rule) bool {
			return h.Src == r.Src && h.Table == r.Table && h.IPv6 == r.IPv6 && (r.Priority == 0 || h.Priority == r.Priority)
		}) {
			t.Errorf("%s is not in %v %v", r, have, err)
		}
		if err := errors.Join(c.Do(nl.DelRule(r)), c.Do(nl.DelRule(r))); err != nil {
			t.Errorf("delete %s twice: %v", r, err)
		}
	}
	if have, err := c.Rules(); err != nil || len(have) != 5 {
		t.Errorf("left %v %v", have, err)
	}
}

func TestNeighbours(t *testing.T) {
	bed, c, index := dial(t)
	n := nl.Neigh{Index: index, IP: addr("10.1.0.9"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, State: unix.NUD_PERMANENT}
	if err := errors.Join(c.Do(nl.SetNeigh(n)), c.Do(nl.SetNeigh(n))); err != nil {
		t.Fatal(err)
	}
	if got := bed.SandboxIP("neigh"); !strings.Contains(got, "10.1.0.9 dev d0 lladdr 02:00:00:00:00:09 PERMANENT") {
		t.Errorf("neighbours: %s", got)
	}
}

// What IsName says of a name the kernel agrees to, but for control characters.
func TestIsName(t *testing.T) {
	_, c, _ := dial(t)
	for name, want := range map[string]bool{
		"cni0": true, "fifteen-letters": true, "é": true, "a,b": true, "eth0.7": true, "...": true,
		"": false, ".": false, "..": false, "sixteen-letters-": false, "a/b": false, "a:b": false, "a b": false, "a\tb": false,
		"à": false, "eth%d": false, "%": false, "cni0\x00x": false, "a\x01": false, "a\x7f": false,
	} {
		if got := nl.IsName(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
		if control := strings.ContainsAny(name, "\x01\x7f"); control {
			continue
		}
		err := c.Do(nl.NewLink("veth", name, 0).Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, "veth").End())
		l, gerr := c.LinkByName(name)
		made := err == nil && gerr == nil && l.Name == name
		if made != want {
			t.Errorf("%q: the kernel makes one: %v (%v, %v)", name, made, err, gerr)
		}
		if gerr == nil {
			_ = c.Do(nl.DelLinkIndex(l.Name, l.Index))
		}
	}
}

func TestLinks(t *testing.T) {
	bed, c, index := dial(t)
	bed.SandboxIP("link", "set", "d0", "alias", "an alias", "txqueuelen", "77", "mtu", "1400", "group", "9")
	bed.SandboxIP("link", "property", "add", "dev", "d0", "altname", "a-name-longer-than-fifteen")
	l, err := c.LinkByIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	if l.Name != "d0" || l.Kind != "veth" || l.MTU != 1400 || l.TxQLen != 77 || l.Group != 9 || l.Alias != "an alias" || !l.Up() || len(l.MAC) != 6 || l.ParentNetns != -1 {
		t.Errorf("%+v", l)
	}
	for _, name := range []string{"d0", "a-name-longer-than-fifteen"} {
		if got, err := c.LinkByName(name); err != nil || got.Index != index {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	if l, err := c.LinkNamed("d0"); err != nil || l.Index != index {
		t.Errorf("%v %v", l, err)
	}
	if l, err := c.LinkNamed("a-name-longer-than-fifteen"); !nl.NotFound(err) {
		t.Errorf("by an alternative name: %v %v", l, err)
	}
	for _, name := range []string{"none", "none-longer-than-fifteen", ""} {
		if _, err := c.LinkByName(name); err == nil || name != "" && !nl.NotFound(err) {
			t.Errorf("%q: %v", name, err)
		}
	}
	all, err := c.Links()
	if err != nil || len(all) != 3 {
		t.Errorf("%d links %v", len(all), err)
	}
	if err := errors.Join(c.Do(nl.DelLinkName("d0")), c.Do(nl.DelLinkName("d0")), c.Do(nl.DelLinkIndex("d0", index))); err != nil {
		t.Error(err)
	}
}

// The kernel goes on after what it refuses; each refusal is told, in words, and
// the answers of the others are not lost.
func TestPartialFailure(t *testing.T) {
	bed, c, index := dial(t)
	err := c.Do(
		nl.AddAddr(nl.Addr{Index: index, Prefix: prefix("10.1.0.2/16")}),
		nl.AddAddr(nl.Addr{Index: 999, Prefix: prefix("10.1.0.3/16")}),
		nl.AddRoute(nl.Route{Dst: prefix("192.0.2.0/24"), Gateway: addr("203.0.113.1"), Index: index}),
		nl.AddAddr(nl.Addr{Index: index, Prefix: prefix("10.1.0.4/16")}))
	if !errors.Is(err, unix.ENODEV) || !errors.Is(err, unix.ENETUNREACH) || !strings.Contains(err.Error(), "add address 10.1.0.3/16: ") || !strings.Contains(err.Error(), "(Nexthop has invalid gateway)") {
		t.Error(err)
	}
	if got := bed.SandboxIP("-br", "-4", "addr", "show", "d0"); !strings.Contains(got, "10.1.0.2/16 10.1.0.4/16") {
		t.Errorf("addresses: %s", got)
	}
	if _, err := c.LinkByIndex(index); err != nil {
		t.Errorf("the socket is out of step: %v", err)
	}
	// Many refusals fit.
	var many []*nl.Message
	for range 150 {
		many = append(many, nl.AddAddr(nl.Addr{Index: 999, Prefix: prefix("10.1.0.3/16")}))
	}
	if got := strings.Count(c.Do(many...).Error(), "add address"); got != 150 {
		t.Errorf("%d refusals told of 150", got)
	}
}

// A refusal of the gate is not sent, and looks like the kernel's; queries pass.
func TestGate(t *testing.T) {
	bed, _, index := dial(t)
	faults := &nltest.Faults{At: 2, Err: unix.EPERM}
	c, err := nl.Dial(bed.Sandbox, unix.NETLINK_ROUTE, faults.Gate)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	forgiving := nl.AddAddr(nl.Addr{Index: index, Prefix: prefix("10.1.0.3/16")})
	err = c.Do(nl.AddAddr(nl.Addr{Index: index, Prefix: prefix("10.1.0.2/16")}), forgiving)
	if !errors.Is(err, unix.EPERM) || faults.What != "add address 10.1.0.3/16" {
		t.Errorf("%v %q", err, faults.What)
	}
	if got := bed.SandboxIP("-br", "-4", "addr", "show", "d0"); !strings.Contains(got, "10.1.0.2/16 \n") || faults.Seen != 2 {
		t.Errorf("%q, %d changes", got, faults.Seen)
	}
	faults.At = 3
	forgiving.Ignore = []unix.Errno{unix.EPERM}
	if err := c.Do(forgiving); err != nil {
		t.Errorf("a forgiven refusal: %v", err)
	}
}

// A dump of several datagrams is whole, and so is one of a big link.
func TestManyLinks(t *testing.T) {
	_, c, _ := dial(t)
	const n = 300
	for i := 0; i < n; i += 50 {
		var batch []*nl.Message
		for j := range 50 {
			m := nl.NewLink("veth", fmt.Sprint("m", i+j), 0)
			batch = append(batch, m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, "veth").End())
		}
		if err := c.Do(batch...); err != nil {
			t.Fatal(err)
		}
	}
	all, err := c.Links()
	if err != nil || len(all) != 2*n+3 {
		t.Errorf("%d links %v", len(all), err)
	}
}

func TestBrief(t *testing.T) {
	bed := nltest.New(t)
	bed.IP("link", "add", "br0", "up", "type", "bridge")
	b, err := nl.BriefByName("br0")
	if err != nil || b.Driver != "bridge" || b.Flags&unix.IFF_UP == 0 || b.Index == 0 {
		t.Errorf("%+v %v", b, err)
	}
	for _, name := range []string{"none", "", strings.Repeat("x", 99)} {
		if _, err := nl.BriefByName(name); !nl.NotFound(err) {
			t.Errorf("%q: %v", name, err)
		}
	}
	mac, err := nl.MACByName("br0")
	if err != nil || !strings.Contains(bed.IP("link", "show", "br0"), mac.String()) {
		t.Errorf("%v %v", mac, err)
	}
}

// A watch hears of what happens after it was made, and ends at its deadline.
func TestWatch(t *testing.T) {
	bed, c, index := dial(t)
	w, err := nl.NewWatch(bed.Sandbox, unix.RTNLGRP_IPV4_IFADDR)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := c.Do(nl.AddAddr(nl.Addr{Index: index, Prefix: prefix("10.1.0.2/16")})); err != nil {
		t.Fatal(err)
	}
	asked := 0
	if err := w.Until(time.Now().Add(time.Minute), func() (bool, error) { asked++; return asked == 2, nil }); err != nil {
		t.Error(err)
	}
	if err := w.Until(time.Now(), func() (bool, error) { return false, nil }); err == nil {
		t.Error("no deadline")
	}
}

// An IPv6 address is local once the kernel's worker has been there, and the
// sandbox of a pair is optional.
func TestIsLocal(t *testing.T) {
	_, c, index := dial(t)
	for _, a := range []string{"10.1.0.2/16", "fd00::2/64"} {
		p := prefix(a)
		for name, ask := range map[string]func(netip.Addr) (bool, error){"IsLocal": c.IsLocal, "HasAddr": c.HasAddr} {
			if is, err := ask(p.Addr()); is || err != nil {
				t.Errorf("%s before: %s %v %v", a, name, is, err)
			}
		}
		if err := c.Do(nl.AddAddr(nl.Addr{Index: index, Prefix: p, Flags: unix.IFA_F_NODAD})); err != nil {
			t.Fatal(err)
		}
		if has, err := c.HasAddr(p.Addr()); !has || err != nil {
			t.Errorf("%s after: has it: %v %v", a, has, err)
		}
		for try := 0; ; try++ {
			local, err := c.IsLocal(p.Addr())
			if local || err != nil || try == 1e6 {
				if !local {
					t.Errorf("%s after: %v", a, err)
				}
				break
			}
		}
	}
	for _, path := range []string{"", "/none", "/etc/hostname"} {
		p, err := nl.Open(path, nil)
		if err != nil || p.Sandbox != nil || p.NS != nil {
			t.Errorf("%q: %+v %v", path, p, err)
			continue
		}
		if err := errors.Join(p.Forget(), p.Close()); err != nil {
			t.Error(err)
		}
	}
}
