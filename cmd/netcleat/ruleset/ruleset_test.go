package ruleset_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/pkg/nltest"
)

// filters are rulesets, and what becomes of a packet from 10.90.0.2 on br0 to
// 198.51.100.1 over up0: "" where it passes, else the chain that drops it, with
// a question mark where that is not sure.
var filters = map[string]string{
	"":                    "",
	"chain f { policy; }": "f",
	"chain f { policy; ip saddr 10.90.0.0/24 accept; }":                                  "",
	"chain f { policy; ip saddr 10.91.0.0/24 accept; }":                                  "f",
	"chain f { policy; ip saddr != 10.90.0.2 accept; }":                                  "f",
	"chain f { policy; iifname br0 accept; }":                                            "",
	`chain f { policy; iifname "br*" oifname != "up*" accept; }`:                         "f",
	"chain f { policy; ct state established,related accept; }":                           "f",
	"chain f { policy; ct state new accept; }":                                           "",
	"chain f { policy; ct state vmap { established : accept, new : jump n }; }":          "",
	"chain f { policy; meta mark 7 accept; }":                                            "f?",
	"chain f { policy; tcp dport 80 accept; }":                                           "f?",
	"chain f { policy; ip saddr { 10.90.0.1, 10.90.0.2 } accept; }":                      "",
	"chain f { policy; ip saddr { 10.90.0.1, 10.90.0.3 } accept; }":                      "f",
	"chain f { policy; ip saddr { 10.0.0.0/9, 10.200.0.0/16 } accept; }":                 "",
	"chain f { policy; ip saddr { 10.91.0.0/16, 10.200.0.0/16 } accept; }":               "f",
	"chain f { policy; iifname . oifname { br0 . up0 } accept; }":                        "",
	"chain f { policy; iifname . oifname { br0 . up1 } accept; }":                        "f",
	"chain f { policy; jump n; }":                                                        "",
	"chain f { policy; goto e; accept; }":                                                "f",
	"chain f { policy; jump e; accept; }":                                                "",
	"chain f { hook; jump d; }":                                                          "f",
	"chain f { hook; ip daddr 198.51.100.0/24 reject; }":                                 "f",
	"chain f { hook; meta nfproto ipv6 drop; }":                                          "",
	"chain f { hook; udp dport 53 drop; }":                                               "",
	"chain f { hook; udp dport 53 jump d; }":                                             "",
	"chain f { policy; ip saddr 10.90.0.2 return; accept; }":                             "f",
	"chain f { hook; counter; log prefix \"x\"; ip ttl 0-255 ip saddr 10.90.0.2 drop; }": "",
}

// Every ruleset has these chains to jump to.
const shared = `
	chain n { accept; }
	chain e { }
	chain d { ip saddr 10.90.0.2 drop; }
`

func TestDrops(t *testing.T) {
	for text, want := range filters {
		t.Run(text, func(t *testing.T) {
			b := nltest.New(t)
			load(b, "table inet t {"+shared+text+"\n}")
			r, err := ruleset.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, v := range r.Drops("forward", packet) {
				got = strings.TrimPrefix(v.Chain, "inet t ")
				if !v.Sure {
					got += "?"
				}
			}
			if got != want {
				t.Errorf("dropped by %q, want %q", got, want)
			}
		})
	}
}

var packet = ruleset.Packet{Src: netip.MustParseAddr("10.90.0.2"), Dst: netip.MustParseAddr("198.51.100.1"), In: "br0", Out: "up0"}

// load loads a ruleset, in which "hook;" and "policy;" stand for a base chain.
func load(b *nltest.Bed, text string) {
	text = strings.NewReplacer(
		"hook;", "type filter hook forward priority 0;", "policy;", "type filter hook forward priority 0; policy drop;",
		"nat;", "type nat hook postrouting priority 100;",
	).Replace(text)
	b.Run("nft", text)
}

// Whoever masquerades, by nftables or iptables, is found.
func TestMasqueraded(t *testing.T) {
	for text, want := range map[string]int{
		"chain p { nat; }": 0,
		"chain p { nat; ip saddr 10.90.0.0/24 ip daddr != 10.90.0.0/24 masquerade; }":    2,
		"chain p { nat; ip saddr 10.90.0.0/24 ip daddr 10.90.0.0/24 masquerade; }":       0,
		"chain p { nat; oifname up0 snat ip to 192.0.2.1; }":                             2,
		"chain p { nat; meta mark 1 masquerade; }":                                       1,
		"chain p { nat; ip daddr 198.51.100.0/24 return; masquerade; }":                  0,
		"iptables -t nat -A POSTROUTING -s 10.90.0.0/24 ! -d 10.90.0.0/24 -j MASQUERADE": 2,
		"iptables -t nat -A POSTROUTING -s 10.90.0.9 -j MASQUERADE":                      0,
	} {
		t.Run(text, func(t *testing.T) {
			b := nltest.New(t)
			if words := strings.Fields(text); words[0] == "iptables" {
				b.Run(words[0], words[1:]...)
			} else {
				load(b, "table inet t {"+text+"\n}")
			}
			r, err := ruleset.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Masqueraded(packet); got != want {
				t.Errorf("masqueraded: %d, want %d", got, want)
			}
		})
	}
}

// The rule that gives a packet to a published port another destination is found:
// the first in the order of the chains, by nftables, iptables and the old tables.
func TestRedirected(t *testing.T) {
	to8080 := ruleset.Packet{
		Src: netip.MustParseAddr("198.51.100.1"), Dst: netip.MustParseAddr("192.0.2.1"), In: "up0", Proto: "tcp", Port: 8080, Local: true,
	}
	for text, want := range map[string]string{
		"chain a { type nat hook prerouting priority -110; tcp dport 8080 dnat ip to 10.9.0.1:80; }":                                                                                          "inet t a",
		"chain a { type nat hook prerouting priority -110; tcp dport 8081 dnat ip to 10.9.0.1:80; }":                                                                                          "",
		"chain a { type nat hook prerouting priority -110; udp dport 8080 dnat ip to 10.9.0.1:80; }":                                                                                          "",
		"chain a { type nat hook prerouting priority -110; fib daddr type local tcp dport 8000-8100 redirect to :22; }":                                                                       "inet t a",
		"chain a { type nat hook prerouting priority -110; ip daddr 192.0.2.9 tcp dport 8080 dnat ip to 10.9.0.1:80; }":                                                                       "",
		"chain a { type nat hook prerouting priority -110; meta l4proto . th dport vmap { tcp . 8080 : jump n }; }":                                                                           "",
		"map m { type inet_service : ipv4_addr; elements = { 8080 : 10.9.0.1 }; }\nchain a { type nat hook prerouting priority -110; dnat ip to tcp dport map @m; }":                          "inet t a",
		"chain b { type nat hook prerouting priority 5; tcp dport 8080 dnat ip to 10.9.0.2:80; }\nchain a { type nat hook prerouting priority -110; tcp dport 8080 dnat ip to 10.9.0.1:80; }": "inet t a",
		"chain a { type nat hook prerouting priority -110; meta mark 7 tcp dport 8080 dnat ip to 10.9.0.1:80; }":                                                                              "", // it may
		"iptables -t nat -A PREROUTING -p tcp --dport 8080 -m addrtype --dst-type LOCAL -j DNAT --to-destination 10.9.0.1:80":                                                                 "ip nat PREROUTING",
		"iptables -t nat -A PREROUTING -p udp --dport 8080 -j DNAT --to-destination 10.9.0.1:80":                                                                                              "",
		"iptables-legacy -t nat -A PREROUTING -p tcp -m tcp --dport 8000:8100 -j REDIRECT --to-ports 22":                                                                                      "iptables-legacy nat PREROUTING",
	} {
		t.Run(text, func(t *testing.T) {
			b := nltest.New(t)
			if words := strings.Fields(text); strings.HasPrefix(words[0], "iptables") {
				if out, ok := b.Try(words[0], words[1:]...); !ok {
					t.Skipf("the kernel has no old iptables: %s", out)
				}
			} else {
				b.Run("nft", "table inet t {chain n { accept; }\n"+text+"\n}")
			}
			r, err := ruleset.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if v := r.Redirected(to8080); v != nil {
				got = v.Chain
			}
			if got != want {
				t.Errorf("redirected by %q, want %q", got, want)
			}
		})
	}
}

// The old tables are judged like the new ones.
func TestOldTables(t *testing.T) {
	for rules, want := range map[string]bool{
		"":                              true,
		"-A FORWARD -i br0 -j ACCEPT":   false,
		"-A FORWARD -i br+ -j ACCEPT":   false,
		"-A FORWARD ! -i br0 -j ACCEPT": true,
		"-A FORWARD -s 10.90.0.0/24 -m conntrack --ctstate ESTABLISHED -j ACCEPT":    true,
		"-A FORWARD -s 10.90.0.0/24 -m conntrack --ctstate NEW -j ACCEPT":            false,
		"-N X;-A X -d 198.51.100.1 -j ACCEPT;-A FORWARD -m comment --comment x -j X": false,
		"-N X;-A X -j RETURN;-A FORWARD -j X":                                        true,
	} {
		t.Run(rules, func(t *testing.T) {
			b := nltest.New(t)
			if out, ok := b.Try("iptables-legacy", "-P", "FORWARD", "DROP"); !ok {
				t.Skipf("the kernel has no old iptables: %s", out)
			}
			for rule := range strings.SplitSeq(rules, ";") {
				if rule != "" {
					b.Run("iptables-legacy", strings.Fields(rule)...)
				}
			}
			r, err := ruleset.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			drops := r.Drops("forward", packet)
			if got := len(drops) > 0; got != want || got && (drops[0].Native || drops[0].Chain != "iptables-legacy filter FORWARD") {
				t.Errorf("drops %+v, want some: %v", drops, want)
			}
		})
	}
}

// A comment says whose a rule or an element is, ours and the reference's.
func TestOwner(t *testing.T) {
	for _, c := range []struct {
		mark    ruleset.Mark
		network string
		id      string
	}{
		{ruleset.Mark{Place: "ip cni_hostport ports_any", Comment: "web eth0 shop", Element: true}, "shop", "web"},
		{ruleset.Mark{Place: "ip filter CNI-FORWARD", Comment: "net: shop, from 10.90.0.0/24"}, "shop", ""},
		{ruleset.Mark{Place: "inet cni_plugins_masquerade masq_checks", Comment: "net: shop"}, "shop", ""},
		{ruleset.Mark{Place: "inet cni_plugins_masquerade net_1", Comment: "10.90.0.0/24 of net: shop"}, "shop", ""},
		{ruleset.Mark{Place: "ip nat POSTROUTING", Comment: `name: "shop" id: "web"`}, "shop", "web"},
		{ruleset.Mark{Place: "ip nat CNI-HOSTPORT-DNAT", Comment: `dnat name: "shop" id: "web"`}, "shop", "web"},
		{ruleset.Mark{Place: "bridge cni_spoofcheck checked", Comment: "02:00:00:00:00:01 web", Element: true}, "", "web"},
		{ruleset.Mark{Place: "ip site f", Comment: "by hand"}, "", ""},
	} {
		if n, id := c.mark.Owner(); n != c.network || id != c.id {
			t.Errorf("%+v: network %q, container %q", c.mark, n, id)
		}
	}
}
