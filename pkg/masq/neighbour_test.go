package masq_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/masq"
)

// TestNeighbour: two networks share a bridge and a subnet. One has ipMasq on; the
// other's container is seen by its own address, whichever comes first, and wherever
// the first one's rule is for a prefix that has it.
func TestNeighbour(t *testing.T) {
	const ranged = `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables","ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/16","rangeStart":"10.1.0.16","rangeEnd":"10.1.0.31"}]]}}`
	for name, c := range map[string]struct{ on, rule string }{
		"a range":     {ranged, `"10.1.0.16/28 of net: net1"`},
		"static":      {strings.Replace(ranged, "host-local", "static", 1), `"10.1.0.17/32 of on, net: net1"`},
		"all of it":   {`{"isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables"}`, `"10.1.0.0/16 of net: net1"`},
		"by iptables": {strings.Replace(ranged, "nftables", "iptables", 1), `ip saddr 10.1.0.17`},
	} {
		for _, first := range []string{"on", "off"} {
			t.Run(name+" "+first, func(t *testing.T) {
				h := newHost(t)
				h.Serve(h.lan, "tcp", "192.0.2.9:80")
				h.In(h.lan, func() { h.IP("route", "add", "10.1.0.0/16", "via", "192.0.2.1") })
				on := h.NewSandbox()
				h.Plug(on, "veth9", "br0", "10.1.0.17/16")
				h.In(on, func() { h.IP("route", "add", "default", "via", "10.1.0.1") })
				before := h.rules()
				var a, b masq.Attachment
				attach := map[string]func(){
					"on": func() { h.net = "net1"; a = h.attach("on", c.on, "10.1.0.17/16"); h.add(a) },
					"off": func() {
						h.net = "plain"
						b = h.attach("off", `{"isGateway":true}`, "10.1.0.2/16")
						_, err := masq.Exempt(t.Context(), b)
						h.must(err)
					},
				}
				attach[first]()
				attach[map[string]string{"on": "off", "off": "on"}[first]]()
				if got := h.Ask(on, "tcp", "192.0.2.9:80"); got != "192.0.2.1" {
					t.Errorf("with ipMasq seen as %q", got)
				}
				if got := h.seen("192.0.2.9:80"); got != "10.1.0.2" {
					t.Errorf("without ipMasq seen as %q", got)
				}
				if out := h.rules(); !strings.Contains(out, c.rule) {
					t.Errorf("no rule %s:\n%s", c.rule, out)
				}
				h.must(masq.Check(t.Context(), a))
				h.must(masq.CheckExempt(t.Context(), b))
				h.must(masq.Del(t.Context(), b))
				h.detach(b)
				if out := h.rules(); strings.Contains(out, "10.1.0.2 ") {
					t.Errorf("still exempt:\n%s", out)
				}
				h.must(masq.Del(t.Context(), a))
				h.detach(a)
				if diff := cmp.Diff(before, h.rules()); diff != "" {
					t.Errorf("left behind (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// TestStaleExemption: a container of the network has the address that one with ipMasq
// off has left without a DEL.
func TestStaleExemption(t *testing.T) {
	h := newHost(t)
	h.Serve(h.lan, "tcp", "192.0.2.9:80")
	const conf = `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables"}`
	h.add(h.attach("first", conf, "10.1.0.9/16"))
	off := h.attach("off", `{"isGateway":true}`, "10.1.0.2/16")
	_, err := masq.Exempt(t.Context(), off)
	h.must(err)
	h.detach(off)
	next := h.attach("next", conf, "10.1.0.2/16")
	if masq.Check(t.Context(), next) == nil {
		t.Error("CHECK passed")
	}
	h.add(next)
	h.must(masq.Check(t.Context(), next))
	if got := h.seen("192.0.2.9:80"); got != "192.0.2.1" {
		t.Errorf("seen as %q", got)
	}
}
