package masq_test

import (
	"testing"

	"github.com/containernetworking/plugins/pkg/utils"
	"github.com/coreos/go-iptables/iptables"

	"github.com/netcleat/netcleat/pkg/masq"
)

// The iptables backend makes the rules that the reference's own packages look for:
// chain and comment by its pkg/utils, rules by go-iptables' Exists (iptables -C).
func TestLibraryFindsTheRules(t *testing.T) {
	h := newHost(t)
	ipt, err := iptables.New()
	if err != nil {
		t.Fatal(err)
	}
	a := h.attach("c1", `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"iptables"}`, "10.1.0.2/16")
	chain, comment := utils.FormatChainName(a.Network, "c1"), utils.FormatComment(a.Network, "c1")
	rules := map[string][]string{
		"POSTROUTING": {"-s", "10.1.0.2", "-j", chain, "-m", "comment", "--comment", comment},
		chain:         {"-d", "10.1.0.0/16", "-j", "ACCEPT", "-m", "comment", "--comment", comment},
	}
	h.add(a)
	for in, rule := range rules {
		if ok, err := ipt.Exists("nat", in, rule...); !ok || err != nil {
			t.Errorf("%s: %q is not there (%v):\n%s", in, rule, err, h.rules())
		}
	}
	h.must(masq.Del(t.Context(), a))
	if ok, err := ipt.ChainExists("nat", chain); ok || err != nil {
		t.Errorf("DEL left the chain %s: %v\n%s", chain, err, h.rules())
	}
}
