package link_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

// ends makes a veth pair: "h0" on the host, up, and "eth0" in the sandbox, down.
func ends(t *testing.T) (*nltest.Bed, *nl.Pair, link.Setup) {
	t.Helper()
	bed := nltest.New(t)
	bed.IP("link", "add", "h0", "up", "type", "veth", "peer", "name", "eth0", "netns", bed.PathOf(bed.Sandbox))
	p, err := nl.Open(bed.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	l, err := p.Sandbox.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return bed, p, link.Setup{Name: "eth0", Index: l.Index, Peer: l.Parent, MAC: l.MAC}
}

func ip(t *testing.T, address, gateway string) *current.IPConfig {
	t.Helper()
	return &current.IPConfig{Address: subnet(t, address), Gateway: link.IPNet(prefixOf(gateway)).IP}
}

func TestConfigure(t *testing.T) {
	v4 := func(t *testing.T) []*current.IPConfig {
		t.Helper()
		return []*current.IPConfig{ip(t, "10.1.0.2/16", "10.1.0.1")}
	}
	v6 := func(t *testing.T) []*current.IPConfig {
		t.Helper()
		return []*current.IPConfig{ip(t, "fd00::2/64", "fd00::1")}
	}
	for name, c := range map[string]struct {
		ips     func(*testing.T) []*current.IPConfig
		change  func(*link.Setup)
		sysctls map[string]string
		addrs   string
	}{
		"v4":           {ips: v4, sysctls: map[string]string{"ipv6/conf/eth0/disable_ipv6": "1", "ipv4/conf/eth0/arp_notify": "1", "ipv4/conf/eth0/arp_ignore": "0"}, addrs: "inet 10.1.0.2/16 brd 10.1.255.255"},
		"v6":           {ips: v6, sysctls: map[string]string{"ipv6/conf/eth0/disable_ipv6": "0", "ipv6/conf/eth0/accept_ra": "0", "ipv6/conf/eth0/accept_dad": "0", "ipv6/conf/eth0/ndisc_notify": "1"}, addrs: "inet6 fd00::2/64 scope global nodad"},
		"v6, RA":       {ips: v6, change: func(s *link.Setup) { s.AcceptRA = true }, sysctls: map[string]string{"ipv6/conf/eth0/accept_ra": "1"}},
		"v4, RA":       {ips: v4, change: func(s *link.Setup) { s.AcceptRA = true }, sysctls: map[string]string{"ipv6/conf/eth0/disable_ipv6": "0", "ipv6/conf/eth0/accept_ra": "1"}},
		"layer 2":      {ips: func(*testing.T) []*current.IPConfig { return nil }, sysctls: map[string]string{"ipv6/conf/eth0/disable_ipv6": "0", "ipv6/conf/eth0/accept_ra": "1"}},
		"waiting":      {ips: v6, change: func(s *link.Setup) { s.DAD = link.WaitDAD }, sysctls: map[string]string{"ipv6/conf/eth0/accept_dad": "1"}, addrs: "inet6 fd00::2/64 scope global \n"},
		"optimistic":   {ips: v6, change: func(s *link.Setup) { s.DAD = link.OptimisticDAD }, sysctls: map[string]string{"ipv6/conf/eth0/optimistic_dad": "1"}, addrs: "inet6 fd00::2/64"},
		"without peer": {ips: v6, change: func(s *link.Setup) { s.Peer = 0 }, addrs: "inet6 fd00::2/64 scope global nodad"},
	} {
		t.Run(name, func(t *testing.T) {
			bed, p, s := ends(t)
			s.IPs = c.ips(t)
			if c.change != nil {
				c.change(&s)
			}
			if err := link.Configure(p, s); err != nil {
				t.Fatal(err)
			}
			bed.In(bed.Sandbox, func() {
				for key, want := range c.sysctls {
					if got := strings.TrimSpace(bed.Run("cat", "/proc/sys/net/"+key)); got != want {
						t.Errorf("%s=%s, want %s", key, got, want)
					}
				}
			})
			if got := bed.SandboxIP("addr", "show", "eth0"); !strings.Contains(got, c.addrs) || !strings.Contains(got, ",UP") {
				t.Errorf("no %q in\n%s", c.addrs, got)
			}
			l, err := p.Sandbox.LinkByName("eth0")
			if err != nil {
				t.Fatal(err)
			}
			if err := link.CheckAddrs(p.Sandbox, l, s.IPs); err != nil {
				t.Errorf("check: %v", err)
			}
		})
	}
}

// Routes of the family of which IPAM gave no address: the kernel has IPv4's, as with
// the reference; IPv6 is off, so its routes are not made, and not reported.
func TestRoutesOfTheOtherFamily(t *testing.T) {
	for addr, want := range map[string]string{"10.1.0.2/16 10.1.0.1": "0.0.0.0/0", "fd00::2/64 fd00::1": "0.0.0.0/0 ::/0 2001:db8::/32"} {
		_, p, s := ends(t)
		a, gw, _ := strings.Cut(addr, " ")
		s.IPs = []*current.IPConfig{ip(t, a, gw)}
		s.Routes = []*types.Route{
			{Dst: subnet(t, "0.0.0.0/0")},
			{Dst: subnet(t, "::/0")},
			{Dst: subnet(t, "2001:db8::/32"), GW: net.ParseIP("fe80::1")},
		}
		if err := link.Configure(p, s); err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
		var got []string
		for _, r := range s.Possible() {
			got = append(got, r.Dst.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: reports %v, want %s", addr, got, want)
		}
		l := &nl.Link{Name: "eth0", Index: s.Index}
		if err := link.CheckRoutes(p.Sandbox, l, s.IPs, s.Possible()); err != nil {
			t.Error(err)
		}
	}
	s := link.Setup{IPs: []*current.IPConfig{ip(t, "10.1.0.2/16", "10.1.0.1")}, Routes: []*types.Route{{Dst: subnet(t, "::/0")}}, AcceptRA: true}
	if len(s.Possible()) != 1 {
		t.Error("with acceptRA the kernel has IPv6")
	}
}

// An address that another host has is an error to who waits for detection, and
// CHECK tells who does not.
func TestDuplicateAddress(t *testing.T) {
	for _, dad := range []link.DAD{link.WaitDAD, link.OptimisticDAD} {
		bed, p, s := ends(t)
		bed.IP("addr", "add", "fd00::2/64", "dev", "h0", "nodad")
		bed.IP("link", "set", "h0", "address", "02:00:00:00:00:01")
		s.IPs, s.DAD = []*current.IPConfig{ip(t, "fd00::2/64", "fd00::1")}, dad
		// One probe may be lost on a link that has just come up.
		if err := sysctl.Set(p.NS, nil, sysctl.Setting{Key: "net/ipv6/conf/eth0/dad_transmits", Value: "3"}); err != nil {
			t.Fatal(err)
		}
		err := link.Configure(p, s)
		if dad == link.WaitDAD {
			if err == nil || !strings.Contains(err.Error(), "duplicate") {
				t.Errorf("waiting: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		w, err := nl.NewWatch(bed.Sandbox, unix.RTNLGRP_IPV6_IFADDR)
		if err != nil {
			t.Fatal(err)
		}
		l := &nl.Link{Name: "eth0", Index: s.Index}
		err = w.Until(inAMinute(), func() (bool, error) {
			cerr := link.CheckAddrs(p.Sandbox, l, s.IPs)
			if cerr != nil && !strings.Contains(cerr.Error(), "dadfailed") {
				return false, cerr
			}
			return cnierr.Code(cerr) == cnierr.CheckFailed, nil
		})
		if err = errors.Join(err, w.Close()); err != nil {
			t.Errorf("optimistic: %v", err)
		}
	}
}

// CHECK compares routes as the kernel has them, and misses what is gone.
func TestCheckRoutes(t *testing.T) {
	table := 100
	route := func(t *testing.T, dst, gw string) *types.Route {
		t.Helper()
		return &types.Route{Dst: subnet(t, dst), GW: link.IPNet(prefixOf(gw)).IP}
	}
	for name, change := range map[string]func(*types.Route){
		"plain":           func(*types.Route) {},
		"host bits":       func(r *types.Route) { r.Dst = subnet(t, "192.0.2.77/24") },
		"default":         func(r *types.Route) { r.Dst = subnet(t, "0.0.0.0/0") },
		"v6 default":      func(r *types.Route) { r.Dst, r.GW = subnet(t, "::/0"), nil },
		"v6 host bits":    func(r *types.Route) { r.Dst, r.GW = subnet(t, "2001:db8::7/32"), nil },
		"implied gateway": func(r *types.Route) { r.GW = nil },
		"gateway 0.0.0.0": func(r *types.Route) { r.GW = net.IPv4zero },
		"gateway ::":      func(r *types.Route) { r.Dst, r.GW = subnet(t, "2001:db8::/32"), net.IPv6zero },
		"table":           func(r *types.Route) { r.Table = &table },
		"priority":        func(r *types.Route) { r.Priority = 42 },
		"metrics":         func(r *types.Route) { r.MTU, r.AdvMSS = 1200, 1100 },
		"on the link":     func(r *types.Route) { scope := unix.RT_SCOPE_LINK; r.Scope, r.GW = &scope, nil },
	} {
		t.Run(name, func(t *testing.T) {
			_, p, s := ends(t)
			s.IPs = []*current.IPConfig{ip(t, "10.1.0.2/16", "10.1.0.1"), ip(t, "fd00::2/64", "fd00::1")}
			r := route(t, "192.0.2.0/24", "10.1.0.9")
			change(r)
			s.Routes = []*types.Route{r}
			if err := link.Configure(p, s); err != nil {
				t.Fatal(err)
			}
			l := &nl.Link{Name: "eth0", Index: s.Index}
			if err := link.CheckRoutes(p.Sandbox, l, s.IPs, s.Routes); err != nil {
				t.Error(err)
			}
			wrong := *r
			wrong.Priority = 77
			if err := link.CheckRoutes(p.Sandbox, l, s.IPs, []*types.Route{&wrong}); cnierr.Code(err) != cnierr.CheckFailed {
				t.Errorf("another priority: %v", err)
			}
			made, err := link.Routes(s.Index, s.IPs, s.Routes)
			if err == nil {
				err = p.Sandbox.Do(nl.DelRoute(made[0]))
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := link.CheckRoutes(p.Sandbox, l, s.IPs, s.Routes); cnierr.Code(err) != cnierr.CheckFailed {
				t.Errorf("gone: %v", err)
			}
		})
	}
}
