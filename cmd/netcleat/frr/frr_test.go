package frr

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func conf(local string) Conf {
	return Conf{
		AS: 65000, Local: netip.MustParseAddr(local), Clients: netip.MustParsePrefix("192.0.2.0/24"),
		Reflectors: []netip.Addr{netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.12")},
	}
}

// A host speaks to the reflectors, a reflector to all.
func TestConf(t *testing.T) {
	for local, want := range map[string]string{
		"192.0.2.13": `frr defaults traditional
router bgp 65000
 bgp router-id 192.0.2.13
 no bgp default ipv4-unicast
 neighbor 192.0.2.11 remote-as 65000
 neighbor 192.0.2.11 timers connect 5
 neighbor 192.0.2.12 remote-as 65000
 neighbor 192.0.2.12 timers connect 5
 address-family l2vpn evpn
  neighbor 192.0.2.11 activate
  neighbor 192.0.2.12 activate
  advertise-all-vni
 exit-address-family
exit
`,
		"192.0.2.12": `frr defaults traditional
router bgp 65000
 bgp router-id 192.0.2.12
 no bgp default ipv4-unicast
 bgp cluster-id 192.0.2.11
 neighbor hosts peer-group
 neighbor hosts remote-as 65000
 bgp listen range 192.0.2.0/24 peer-group hosts
 neighbor 192.0.2.11 remote-as 65000
 neighbor 192.0.2.11 timers connect 5
 address-family l2vpn evpn
  neighbor hosts activate
  neighbor hosts route-reflector-client
  neighbor 192.0.2.11 activate
  advertise-all-vni
 exit-address-family
exit
`,
	} {
		c := conf(local)
		if err := c.Check(); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(want, c.String()); d != "" {
			t.Errorf("%s (-want +got):\n%s", local, d)
		}
	}
}

func TestRefuses(t *testing.T) {
	for want, change := range map[string]func(*Conf){
		"as: 0":                       func(c *Conf) { c.AS = 0 },
		"want two or more":            func(c *Conf) { c.Reflectors = c.Reflectors[:1] },
		"clients: missing":            func(c *Conf) { c.Clients = netip.Prefix{} },
		"address 2001:db8::1":         func(c *Conf) { c.Local = netip.MustParseAddr("2001:db8::1") },
		"address 2001:db8::2":         func(c *Conf) { c.Reflectors[1] = netip.MustParseAddr("2001:db8::2") },
		"reflector 192.0.2.11: named": func(c *Conf) { c.Reflectors = append(c.Reflectors, c.Reflectors[0]) },
		"clients 192.0.2.1/24":        func(c *Conf) { c.Clients = netip.MustParsePrefix("192.0.2.1/24") },
	} {
		c := conf("192.0.2.11")
		change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
