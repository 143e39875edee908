package masq_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/nltest"
)

// TestSpoiled: CHECK sees each part that is missing or was changed, and Reconcile
// restores it.
func TestSpoiled(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			h := newHost(t)
			if backend == "legacy" {
				h.Run("iptables-legacy", "-t", "nat", "-L", "-n")
				h.Run("ip6tables-legacy", "-t", "nat", "-L", "-n")
			}
			before := h.rules()
			on := h.attach("on", `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"`+strings.Replace(backend, "legacy", "", 1)+`"}`, "10.1.0.2/16", "fd01::2/64")
			off := h.attach("off", `{"isGateway":true}`, "10.1.0.3/16", "fd01::3/64")
			h.add(on)
			made := nltest.Lines(h.rules())
			records, err := h.Journal().Network("net1")
			h.must(err)
			h.EachSpoil(func(spoil func()) {
				spoil()
				if masq.Check(t.Context(), on) == nil && masq.CheckExempt(t.Context(), off) == nil {
					t.Error("CHECK passed")
				}
				for _, r := range records {
					h.must(masq.Reconcile(t.Context(), nil, h.Journal(), r))
				}
				if diff := cmp.Diff(made, nltest.Lines(h.rules())); diff != "" {
					t.Errorf("reconciled (-made +now):\n%s", diff)
				}
				h.must(masq.Check(t.Context(), on))
				h.must(masq.CheckExempt(t.Context(), off))
			})
			for _, a := range []masq.Attachment{off, on} {
				h.must(masq.Del(t.Context(), a))
				h.detach(a)
			}
			if diff := cmp.Diff(before, h.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestReload: a ruleset that was saved and loaded is the same to the kernel.
func TestReload(t *testing.T) {
	h := newHost(t)
	h.attach("off", `{"isGateway":true}`, "10.1.0.3/16", "fd01::3/64")
	on := h.attach("on", `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables"}`, "10.1.0.2/16", "fd01::2/64")
	h.add(on)
	odd := h.attach("odd", `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables"}`, "10.9.0.2/20", "fd09::2/61")
	h.add(odd)
	before := h.KernelRules()
	h.Reload()
	if diff := cmp.Diff(before, h.KernelRules()); diff != "" {
		t.Errorf("to the kernel (-made +loaded):\n%s\n%s", diff, h.rules())
	}
	h.must(masq.Check(t.Context(), on))
	h.must(masq.Check(t.Context(), odd))
}
