package firewall

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func TestParse(t *testing.T) {
	for conf, want := range map[string]string{
		`{}`:                       "",
		`{"backend":""}`:           "",
		`{"backend":"firewalld"}`:  "",
		`{"ingressPolicy":"open"}`: "",
		`{"ingressPolicy":"same"}`: `unknown ingress policy: "same"`,
		`{"backend":"ufw"}`:        `firewall backend "ufw": want iptables, firewalld or nftables`,
		`{"iptablesAdminChainName":"A chain whose name is too long"}`: `iptablesAdminChainName "A chain whose name is too long": longer than 28 characters`,
	} {
		_, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: []byte(conf)})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want || err != nil && cnierr.Code(err) != cnierr.InvalidConfig {
			t.Errorf("%s: %q (code %d), want %q", conf, got, cnierr.Code(err), want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "firewall") {
		f.Add([]byte(conf))
	}
	f.Add([]byte(`{"backend":"iptables","ingressPolicy":"isolated","firewalldZone":"work"}`))
	f.Fuzz(func(t *testing.T, conf []byte) {
		if _, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: conf}); err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("%q: no code: %v", conf, err)
		}
	})
}

// TestWithoutCompat: the rules of a kernel that has no nft_compat.
func TestWithoutCompat(t *testing.T) {
	w := nltest.New(t)
	j := &job{needs: needs{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, AdminChain: "CNI-ADMIN"}}
	j.key.Network = "net1"
	c, err := nft.Dial(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Update(t.Context(), "test", func(tx *nft.Tx) error { return native{}.build(j, c, tx, ctStates) }); err != nil {
		t.Fatal(err)
	}
	want := `table ip filter {
	chain CNI-FORWARD {
		counter packets 0 bytes 0 jump CNI-ADMIN comment "CNI firewall plugin admin overrides"
		ip daddr 10.1.0.0/16 ct state established,related counter packets 0 bytes 0 accept comment "net: net1, to 10.1.0.0/16"
		ip daddr 10.1.0.0/16 ct status dnat counter packets 0 bytes 0 accept comment "net: net1, published 10.1.0.0/16"
		ip saddr 10.1.0.0/16 counter packets 0 bytes 0 accept comment "net: net1, from 10.1.0.0/16"
	}
}
`
	if diff := cmp.Diff(want, w.Run("nft", "list", "chain", "ip", "filter", "CNI-FORWARD")); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if err := j.delNative(t.Context(), c, j.Prefixes); err != nil {
		t.Fatal(err)
	}
	if out := w.Run("nft", "list", "ruleset"); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
}

// Whatever a record says was needed, scripts can be made of it.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"backend":"iptables","prefixes":["10.1.0.0/16","fd00::/64"],"adminChain":"CNI-ADMIN","policy":"isolated"}`), "-A CNI-FORWARD -d 10.1.0.0/16 -j ACCEPT")
	f.Add([]byte(`{"prefixes":["0.0.0.0/0"],"adminChain":""}`), ":CNI-FORWARD - [0:0]")
	f.Fuzz(func(_ *testing.T, state []byte, line string) {
		r := journal.Record{State: state}
		j := &job{}
		j.key = journal.Key{Network: "net", ContainerID: "c1"}
		if r.GetState(&j.needs) != nil {
			return
		}
		lines := iptables.Parse([]string{line})
		for _, v6 := range []bool{false, true} {
			for _, l := range lines {
				oldTables{iptables.Tool{V6: v6}}.isLeft(j, l)
			}
			oldTables{iptables.Tool{V6: v6}}.rules(j)
		}
		j.undoScript(lines, j.Prefixes)
		j.elements()
	})
}
