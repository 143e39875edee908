package masq_test

import (
	"os"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/veth"
)

// lost gives the sandbox's host end the alias of a container that has no record.
func (h *host) lost(network, id string) {
	h.IP("link", "set", "veth0", "alias", veth.Alias(journal.Key{Network: network, ContainerID: id, IfName: "eth0"}))
}

// A container that runs without a record keeps the network's rule: DEL of the last
// one with a record leaves it, and a GC whose list has the container.
func TestUnrecorded(t *testing.T) {
	const conf = `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables"}`
	list := []plugin.Attachment{{ContainerID: "lost", IfName: "eth0"}}
	for name, c := range map[string]struct {
		network string
		remove  func(*host, masq.Attachment) error
		stays   bool
	}{
		"DEL":                      {"net1", func(h *host, a masq.Attachment) error { return masq.Del(h.t.Context(), a) }, true},
		"DEL, another network":     {"net10", func(h *host, a masq.Attachment) error { return masq.Del(h.t.Context(), a) }, false},
		"GC that lists it":         {"net1", func(h *host, a masq.Attachment) error { return masq.GC(h.t.Context(), network(a), living(list...)) }, true},
		"GC that does not list it": {"net1", func(h *host, a masq.Attachment) error { return masq.GC(h.t.Context(), network(a), living()) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.Serve(h.lan, "tcp", "192.0.2.9:80")
			a := h.attach("a", conf, "10.1.0.3/16")
			h.add(a)
			h.lost(c.network, "lost")
			h.must(os.RemoveAll(string(h.Journal())))
			h.must(c.remove(h, a))
			if got := h.seen("192.0.2.9:80") == "192.0.2.1"; got != c.stays {
				t.Errorf("masqueraded: %v, want %v\n%s", got, c.stays, h.rules())
			}
		})
	}
}

// network is what GC knows of an attachment.
func network(a masq.Attachment) masq.Attachment {
	return masq.Attachment{Journal: a.Journal, Network: a.Network}
}

// The prefix of a container that runs without a record keeps its rule, where
// others of the network have records.
func TestUnrecordedPrefix(t *testing.T) {
	const conf = `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables"}`
	h := newHost(t)
	a, b := h.attach("a", conf, "10.1.0.3/16"), h.attach("b", conf, "10.2.0.3/16")
	h.add(a)
	h.add(b)
	h.lost("net1", "lost")
	h.must(masq.Del(t.Context(), a))
	if out := h.rules(); !strings.Contains(out, `"10.1.0.0/16 of net: net1"`) {
		t.Errorf("the rule of 10.1.0.0/16 is gone:\n%s", out)
	}
}

// A container with two interfaces on a network, of which one has no record, keeps
// the chain for that one.
func TestUnrecordedSibling(t *testing.T) {
	h := newHost(t)
	h.Serve(h.lan, "tcp", "192.0.2.9:80")
	const conf = `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"iptables"}`
	first := h.attach("lost", conf, "10.1.0.2/16")
	h.add(first)
	second := first
	second.IfName, second.Addrs = "eth1", h.attach("second", conf, "10.1.0.7/16").Addrs
	h.add(second)
	h.lost("net1", "lost")
	h.must(os.RemoveAll(string(h.Journal())))
	h.must(masq.Del(t.Context(), second))
	if got := h.seen("192.0.2.9:80"); got != "192.0.2.1" {
		t.Errorf("after the other interface went, seen as %q", got)
	}
	h.must(masq.Del(t.Context(), first))
	if out := h.rules(); strings.Contains(out, "CNI-") {
		t.Errorf("left behind:\n%s", out)
	}
}

// The reference names a container's chain by the network's and the container's name
// without anything between them. Containers of two networks that have one name for
// it share it: DEL and GC of the one leave what the other needs.
func TestSameChain(t *testing.T) {
	const conf = `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"iptables"}`
	for name, remove := range map[string]func(*host, masq.Attachment) error{
		"DEL": func(h *host, a masq.Attachment) error { return masq.Del(h.t.Context(), a) },
		"GC":  func(h *host, a masq.Attachment) error { return masq.GC(h.t.Context(), network(a), living()) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.Serve(h.lan, "tcp", "192.0.2.9:80")
			h.net = "a"
			stays := h.attach("bc", conf, "10.1.0.2/16")
			h.add(stays)
			h.net = "ab"
			leaves := h.attach("c", conf, "10.2.0.2/16")
			h.add(leaves)
			h.must(masq.Check(t.Context(), stays))
			h.detach(leaves)
			h.must(remove(h, leaves))
			h.must(masq.Check(t.Context(), stays))
			if got := h.seen("192.0.2.9:80"); got != "192.0.2.1" {
				t.Errorf("after the other network's container went, seen as %q", got)
			}
			h.detach(stays)
			h.must(masq.Del(t.Context(), stays))
			if out := h.rules(); strings.Contains(out, "CNI-") {
				t.Errorf("left behind:\n%s", out)
			}
		})
	}
}
