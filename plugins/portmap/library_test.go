package portmap_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/utils"
	"github.com/coreos/go-iptables/iptables"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// The iptables backend makes the rules that the reference's own packages look for:
// chain names by its pkg/utils, rules by go-iptables' Exists (iptables -C).
func TestLibraryFindsTheRules(t *testing.T) {
	w := newTown(t)
	ipt, err := iptables.New()
	if err != nil {
		t.Fatal(err)
	}
	chain := utils.MustFormatChainNameWithPrefix("net1", "a", "DN-")
	rules := map[string][]string{
		"CNI-HOSTPORT-DNAT": {
			"-p", "tcp", "-m", "comment", "--comment", `dnat name: "net1" id: "a"`, "-m", "multiport", "--destination-ports", "8080", "-j", chain,
		},
		chain: {"-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to-destination", "10.1.0.2:80"},
	}
	a := w.at(who{"a", "net1", "10.1.0.2"}, "iptables", tcp8080)
	w.Must(plugin.Add, a)
	for in, rule := range rules {
		if ok, err := ipt.Exists("nat", in, rule...); !ok || err != nil {
			t.Errorf("%s: %q is not there (%v):\n%s", in, rule, err, w.rules())
		}
	}
	w.Must(plugin.Del, a)
	chains, err := ipt.ListChains("nat")
	if err != nil || slices.ContainsFunc(chains, func(c string) bool { return strings.HasPrefix(c, "CNI-") }) {
		t.Errorf("chains %q, %v", chains, err)
	}
}
