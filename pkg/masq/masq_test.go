package masq_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// host is a machine with a container of network net1 behind it, and a LAN.
type host struct {
	*nltest.Bed
	t   *testing.T
	lan *netns.NS
	net string // of the attachments
}

func newHost(t *testing.T) *host {
	t.Helper()
	b := nltest.New(t)
	h := &host{b, t, b.NewSandbox(), "net1"}
	h.Forward()
	h.Bridge("br0", "10.1.0.1/16", "fd01::1/64")
	h.Plug(h.Sandbox, "veth0", "br0", "10.1.0.2/16", "fd01::2/64")
	h.Plug(h.lan, "lan0", "", "192.0.2.9/24", "2001:db8::9/64")
	h.Addr("lan0", "192.0.2.1/24")
	h.Addr("lan0", "2001:db8::1/64")
	h.In(h.Sandbox, func() {
		h.IP("route", "add", "default", "via", "10.1.0.1")
		h.IP("-6", "route", "add", "default", "via", "fd01::1")
	})
	return h
}

// attach writes an attachment's record, as bridge does around masquerading.
func (h *host) attach(id, conf string, ips ...string) masq.Attachment {
	h.t.Helper()
	k := journal.Key{Network: h.net, ContainerID: id, IfName: "eth0", Plugin: "bridge"}
	e, err := h.Journal().Open(h.t.Context(), k)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, ip := range ips {
		e.IPs = append(e.IPs, netip.MustParsePrefix(ip))
	}
	e.Config = json.RawMessage(conf)
	if !strings.Contains(conf, "ipam") {
		e.Config = withIPAM(conf, e.IPs)
	}
	a := masq.OfRecord(nil, h.Journal(), e.Record)
	for _, err := range []error{e.Begin(), e.Done(), e.Close()} {
		if err != nil {
			h.t.Fatal(err)
		}
	}
	return a
}

// withIPAM adds an IPAM plugin that hands out all of the addresses' prefixes.
func withIPAM(conf string, ips []netip.Prefix) json.RawMessage {
	sets := []string{}
	for _, p := range ips {
		sets = append(sets, fmt.Sprintf(`[{"subnet":%q}]`, p.Masked()))
	}
	end := fmt.Sprintf(`"ipam":{"type":"host-local","ranges":[%s]}}`, strings.Join(sets, ","))
	if conf != "{}" {
		end = "," + end
	}
	return json.RawMessage(strings.TrimSuffix(conf, "}") + end)
}

// detach forgets the record.
func (h *host) detach(a masq.Attachment) {
	h.t.Helper()
	e, err := h.Journal().Open(h.t.Context(), journal.Key{Network: a.Network, ContainerID: a.ContainerID, IfName: a.IfName, Plugin: "bridge"})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, err := range []error{e.Remove(), e.Close()} {
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) add(a masq.Attachment) {
	h.t.Helper()
	_, err := masq.Add(h.t.Context(), a)
	h.must(err)
}

// rules is the host's ruleset with the kernel's old tables.
func (h *host) rules() string {
	out := h.Run("nft", "-s", "list", "ruleset")
	for _, cmd := range []string{"iptables-legacy-save", "ip6tables-legacy-save"} {
		for _, line := range strings.Split(h.Run(cmd), "\n") {
			if strings.HasPrefix(line, "-") || strings.HasPrefix(line, ":") && !strings.Contains(line, " ACCEPT ") {
				out += line + "\n"
			}
		}
	}
	return out
}

// seen is the address under which the LAN sees the container.
func (h *host) seen(addr string) string { return h.Ask(h.Sandbox, "tcp", addr) }

var backends = []struct {
	name, conf string
	prepare    func(*host)
}{
	{"default", `{"isGateway":true,"ipMasq":true}`, func(*host) {}},
	{"empty", `{"isGateway":true,"ipMasq":true,"ipMasqBackend":""}`, func(*host) {}},
	{"nftables", `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables"}`, func(*host) {}},
	{"iptables", `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"iptables"}`, func(*host) {}},
	{"legacy", `{"isGateway":true,"ipMasq":true}`, func(h *host) {
		h.Run("iptables-legacy", "-t", "nat", "-L", "-n")
		h.Run("ip6tables-legacy", "-t", "nat", "-L", "-n")
	}},
}

// TestSeen sends packets: under which address containers are seen.
func TestSeen(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			h := newHost(t)
			b.prepare(h)
			h.Serve(h.lan, "tcp", "192.0.2.9:80")
			h.Serve(h.lan, "tcp", "[2001:db8::9]:80")
			h.Serve(h.Host, "tcp", "10.1.0.1:80")
			before := h.rules()
			a := h.attach("c1", b.conf, "10.1.0.2/16", "fd01::2/64")
			h.add(a)
			h.must(masq.Check(t.Context(), a))
			for addr, want := range map[string]string{
				"192.0.2.9:80": "192.0.2.1", "[2001:db8::9]:80": "2001:db8::1", "10.1.0.1:80": "10.1.0.2",
			} {
				if got := h.seen(addr); got != want {
					t.Errorf("%s sees the container as %q, want %q", addr, got, want)
				}
			}
			bare := a
			bare.Addrs, bare.Backend = nil, nil
			h.must(masq.Del(t.Context(), bare))
			h.detach(a)
			h.must(masq.Del(t.Context(), bare))
			if diff := cmp.Diff(before, h.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestNetwork: one rule for a network, made with its first container, kept until
// its last; those with ipMasq off are exempt, whoever comes first.
func TestNetwork(t *testing.T) {
	h := newHost(t)
	h.Serve(h.lan, "tcp", "192.0.2.9:80")
	before := h.rules()
	off := h.attach("off", `{}`, "10.1.0.2/16")
	on := h.attach("on", `{"isGateway":true,"ipMasq":true}`, "10.1.0.3/16")
	h.add(on)
	want := `table inet cni_plugins_masquerade {
	comment "Masquerading for CNI plugins"
	set exempt4_8e48f37d5de60467 {
		type ipv4_addr
		elements = { 10.1.0.2 comment "off" }
	}

	chain masq_checks {
		jump net_8e48f37d5de60467 comment "net: net1"
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr 224.0.0.0/4 return
		ip6 daddr ff00::/8 return
		goto masq_checks
	}

	chain net_8e48f37d5de60467 {
		ip saddr @exempt4_8e48f37d5de60467 return comment "attached with ipMasq off"
		ip saddr 10.1.0.0/16 ip daddr != 10.1.0.0/16 masquerade comment "10.1.0.0/16 of net: net1"
	}
}
`
	if diff := cmp.Diff(want, h.rules()); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	more := h.attach("more", `{"isGateway":true,"ipMasq":true}`, "10.1.0.4/16")
	more.Gate = func(what string) error { return fmt.Errorf("asked for %q", what) }
	h.add(more)
	h.must(masq.Del(t.Context(), more))
	h.detach(more)
	if got := h.seen("192.0.2.9:80"); got != "" {
		t.Errorf("the exempt container is seen as %q", got) // the LAN has no route to it
	}
	h.must(masq.Del(t.Context(), off))
	h.detach(off)
	if got := h.seen("192.0.2.9:80"); got != "192.0.2.1" {
		t.Errorf("no longer exempt, yet seen as %q", got)
	}
	late := h.attach("late", `{}`, "10.1.0.2/16")
	_, err := masq.Exempt(t.Context(), late)
	h.must(err)
	if got := h.seen("192.0.2.9:80"); got != "" {
		t.Errorf("exempt later, yet seen as %q", got)
	}
	h.must(masq.Del(t.Context(), on))
	h.detach(on)
	if diff := cmp.Diff(before, h.rules()); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestExemptBesideTheLast: an attachment is exempt from a rule that goes, with the
// last that needed it, just before its turn.
func TestExemptBesideTheLast(t *testing.T) {
	h := newHost(t)
	before := h.rules()
	on, off := h.attach("on", `{"isGateway":true,"ipMasq":true}`, "10.1.0.3/16"), h.attach("off", `{}`, "10.1.0.2/16")
	h.add(on)
	unlock, err := h.Journal().Lock(t.Context(), "masquerade of net1")
	h.must(err)
	waited := false
	ctx := nltest.Meanwhile(t.Context(), func() {
		waited = true
		h.must(unlock())
		h.must(masq.Del(t.Context(), on))
	})
	_, err = masq.Exempt(ctx, off)
	h.must(err)
	if !waited {
		t.Error("did not wait for its turn")
	}
	if diff := cmp.Diff(before, h.rules()); diff != "" {
		t.Errorf("made for nobody (-before +after):\n%s", diff)
	}
}

// TestExemptBesideTheFirst: an attachment with ipMasq off comes while the network's
// first rules are on their way, and sees none.
func TestExemptBesideTheFirst(t *testing.T) {
	h := newHost(t)
	on := h.attach("on", `{"isGateway":true,"ipMasq":true}`, "10.1.0.3/16")
	attach := sync.OnceFunc(func() {
		_, err := masq.Exempt(t.Context(), h.attach("off", `{}`, "10.1.0.2/16"))
		h.must(err)
	})
	on.Gate = func(string) error { attach(); return nil }
	h.add(on)
	if !strings.Contains(h.rules(), "10.1.0.2 ") {
		t.Errorf("is not exempt:\n%s", h.rules())
	}
}

// TestOwnPrefix: where each container has a prefix, its rule goes with it.
func TestOwnPrefix(t *testing.T) {
	h := newHost(t)
	a := h.attach("a", `{"isGateway":true,"ipMasq":true}`, "10.9.0.1/32")
	b := h.attach("b", `{"isGateway":true,"ipMasq":true}`, "10.9.0.2/32")
	h.add(a)
	h.add(b)
	h.must(masq.Del(t.Context(), a))
	h.detach(a)
	if out := h.rules(); strings.Contains(out, "10.9.0.1") || !strings.Contains(out, "10.9.0.2") {
		t.Errorf("rules:\n%s", out)
	}
}

// TestSingle: where the host is not the gateway only the containers' own addresses
// are masqueraded, not those of other machines with the prefix.
func TestSingle(t *testing.T) {
	h := newHost(t)
	h.Serve(h.lan, "tcp", "192.0.2.9:80")
	stranger := h.NewSandbox()
	h.Plug(stranger, "veth9", "br0", "10.1.0.9/16")
	h.In(stranger, func() { h.IP("route", "add", "default", "via", "10.1.0.1") })
	h.In(h.lan, func() { h.IP("route", "add", "10.1.0.0/16", "via", "192.0.2.1") })
	before := h.rules()
	a, b := h.attach("a", `{"ipMasq":true}`, "10.1.0.2/16"), h.attach("b", `{"ipMasq":true}`, "10.1.0.3/16")
	h.add(a)
	h.add(b)
	if got := h.seen("192.0.2.9:80"); got != "192.0.2.1" {
		t.Errorf("the container is seen as %q", got)
	}
	if got := h.Ask(stranger, "tcp", "192.0.2.9:80"); got != "10.1.0.9" {
		t.Errorf("the other machine is seen as %q", got)
	}
	h.must(masq.Check(t.Context(), a))
	h.must(masq.Del(t.Context(), a))
	h.detach(a)
	if out := h.rules(); strings.Contains(out, "10.1.0.2") || !strings.Contains(out, "10.1.0.3") {
		t.Errorf("after the first went:\n%s", out)
	}
	h.must(masq.Del(t.Context(), b))
	h.detach(b)
	if diff := cmp.Diff(before, h.rules()); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestExceptions: rules by which an administrator has iptables leave packets alone, or
// give them another source, go on to do so, as with the reference.
func TestExceptions(t *testing.T) {
	const rule = "-t nat -I POSTROUTING -s 10.1.0.0/16 -d 192.0.2.0/24 -j "
	for target, want := range map[string]string{"ACCEPT": "10.1.0.2", "RETURN": "10.1.0.2", "SNAT --to-source 192.0.2.7": "192.0.2.7"} {
		t.Run(target, func(t *testing.T) {
			h := newHost(t)
			h.Serve(h.lan, "tcp", "192.0.2.9:80")
			h.Addr("lan0", "192.0.2.7/24")
			h.In(h.lan, func() { h.IP("route", "add", "10.1.0.0/16", "via", "192.0.2.1") })
			h.Run("iptables", strings.Fields(rule+target)...)
			before := h.rules()
			a := h.attach("a", `{"isGateway":true,"ipMasq":true}`, "10.1.0.2/16")
			h.add(a)
			if got := h.seen("192.0.2.9:80"); got != want {
				t.Errorf("seen as %q, want %q\n%s", got, want, h.rules())
			}
			h.must(masq.Check(t.Context(), a))
			h.Run("iptables", strings.Fields(strings.Replace(rule, "-I", "-D", 1)+target)...)
			h.must(masq.Check(t.Context(), a)) // what is in place stays
			h.Run("iptables", strings.Fields(rule+target)...)
			h.must(masq.Del(t.Context(), a))
			if diff := cmp.Diff(before, h.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// begun is the record of an ADD that has no address yet.
func (h *host) begun(id, conf string) *journal.Entry {
	h.t.Helper()
	e, err := h.Journal().Open(h.t.Context(), journal.Key{Network: h.net, ContainerID: id, IfName: "eth0", Plugin: "bridge"})
	h.must(err)
	e.Config = json.RawMessage(conf)
	h.must(e.Begin())
	return e
}

// TestBegun: an ADD that waits for its address keeps nobody's rules from going; it
// makes its own.
func TestBegun(t *testing.T) {
	for _, conf := range []string{`{"ipMasq":true}`, `{"isGateway":true,"ipMasq":true}`} {
		h := newHost(t)
		before := h.rules()
		a := h.attach("a", conf, "10.1.0.2/16")
		h.add(a)
		e := h.begun("b", conf)
		h.must(masq.Del(t.Context(), a))
		h.detach(a)
		h.must(errors.Join(e.Abandon(), e.Close()))
		if diff := cmp.Diff(before, h.rules()); diff != "" {
			t.Errorf("%s: left behind (-before +after):\n%s", conf, diff)
		}
	}
}

// TestExemptUndo: an attachment with ipMasq off fails after the network's first rules
// were made, and has exempted it.
func TestExemptUndo(t *testing.T) {
	h := newHost(t)
	off := h.attach("off", `{}`, "10.1.0.2/16")
	undo, err := masq.Exempt(t.Context(), off)
	h.must(err)
	h.add(h.attach("on", `{"isGateway":true,"ipMasq":true}`, "10.1.0.3/16"))
	h.must(undo())
	if out := h.rules(); strings.Contains(out, "10.1.0.2 ") {
		t.Errorf("is still exempt:\n%s", out)
	}
}

// TestLeavingIsNotExempt: nor is one that goes while they are made.
func TestLeavingIsNotExempt(t *testing.T) {
	h := newHost(t)
	h.must(masq.Del(t.Context(), h.attach("off", `{}`, "10.1.0.2/16"))) // and its record is still there
	h.add(h.attach("on", `{"isGateway":true,"ipMasq":true}`, "10.1.0.3/16"))
	if out := h.rules(); strings.Contains(out, "10.1.0.2 ") {
		t.Errorf("is exempt:\n%s", out)
	}
}

// TestFlushed: CHECK notices, Reconcile restores, and does so once.
func TestFlushed(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			h := newHost(t)
			b.prepare(h)
			a := h.attach("c1", b.conf, "10.1.0.2/16", "fd01::2/64")
			h.add(a)
			made := h.rules()
			h.Run("nft", "flush", "ruleset")
			if b.name == "legacy" {
				h.Run("iptables-legacy", "-t", "nat", "-F")
				h.Run("ip6tables-legacy", "-t", "nat", "-F")
			}
			if err := masq.Check(t.Context(), a); err == nil {
				t.Error("CHECK passed on a flushed ruleset")
			}
			records, err := h.Journal().Network("net1")
			h.must(err)
			for range 2 {
				h.must(masq.Reconcile(t.Context(), nil, h.Journal(), records[0]))
			}
			if diff := cmp.Diff(made, h.rules()); diff != "" {
				t.Errorf("reconciled (-made +now):\n%s", diff)
			}
		})
	}
}

// TestSecondInterface: the chain of a container with two interfaces on a network
// stays for the one when the other goes.
func TestSecondInterface(t *testing.T) {
	h := newHost(t)
	h.Serve(h.lan, "tcp", "192.0.2.9:80")
	conf := `{"isGateway":true,"ipMasq":true,"ipMasqBackend":"iptables"}`
	first := h.attach("c1", conf, "10.1.0.2/16")
	h.add(first)
	second := first
	second.IfName, second.Addrs = "eth1", []netip.Prefix{netip.MustParsePrefix("10.1.0.7/16")}
	h.add(second)
	h.must(masq.Del(t.Context(), second))
	if got := h.seen("192.0.2.9:80"); got != "192.0.2.1" {
		t.Errorf("after the other interface went, seen as %q", got)
	}
}

// reference runs a plugin of the reference's.
func (h *host) reference(verb, id, conf string) {
	h.t.Helper()
	bin := nltest.Reference(h.t)
	cmd := exec.Command(bin + "/bridge")
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+id, "CNI_NETNS="+h.Path, "CNI_IFNAME=eth5", "CNI_PATH="+bin)
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(conf, "DATADIR", h.Dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("reference %s: %v\n%s", verb, err, out)
	}
}

// living is GC's list.
func living(list ...plugin.Attachment) func() ([]plugin.Attachment, error) {
	return func() ([]plugin.Attachment, error) { return list, nil }
}

// TestReference: Del and GC remove what the reference made, and only that.
func TestReference(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			h := newHost(t)
			conf := func(net string) string {
				return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"%s","type":"bridge","bridge":"%s","ipMasq":true,"ipMasqBackend":"%s","ipam":{"type":"static","addresses":[{"address":"10.%s.0.2/16"}]}}`, net, net, backend, net[3:])
			}
			h.reference("ADD", "c1", conf("net6"))
			h.In(h.Sandbox, func() { h.IP("link", "set", "eth5", "name", "eth6") })
			h.reference("ADD", "c2", conf("net7"))
			one := masq.Attachment{Journal: h.Journal(), Network: "net6", ContainerID: "c1", IfName: "eth5"}
			two := masq.Attachment{Journal: h.Journal(), Network: "net7", ContainerID: "c2", IfName: "eth5"}
			h.must(masq.Del(t.Context(), one))
			if out := h.rules(); strings.Contains(out, "10.6.0") || !strings.Contains(out, "10.7.0.2") {
				t.Errorf("after DEL of one of two:\n%s", out)
			}
			h.must(masq.GC(t.Context(), two, living(plugin.Attachment{ContainerID: "c2", IfName: "eth5"})))
			if out := h.rules(); !strings.Contains(out, "10.7.0.2") {
				t.Errorf("GC removed what is valid:\n%s", out)
			}
			h.must(masq.GC(t.Context(), two, living()))
			if out := h.rules(); strings.Contains(out, "10.7.0") {
				t.Errorf("GC left:\n%s", out)
			}
		})
	}
}

// TestConcurrent: 64 attachments of several networks come and go at once.
func TestConcurrent(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			h := newHost(t)
			before := h.rules()
			var list []masq.Attachment
			for i := range 64 {
				h.net = fmt.Sprintf("net%d", i%4)
				list = append(list, h.attach(fmt.Sprintf("c%d", i), fmt.Sprintf(`{"isGateway":true,"ipMasq":true,"ipMasqBackend":%q}`, backend), fmt.Sprintf("10.1.1.%d/16", i)))
			}
			each := func(do func(masq.Attachment) error) {
				var wg sync.WaitGroup
				for _, a := range list {
					wg.Go(func() {
						h.In(h.Host, func() {
							if err := do(a); err != nil {
								t.Error(err)
							}
						})
					})
				}
				wg.Wait()
			}
			each(func(a masq.Attachment) error { _, err := masq.Add(t.Context(), a); return err })
			each(func(a masq.Attachment) error { return masq.Check(t.Context(), a) })
			each(func(a masq.Attachment) error {
				err := masq.Del(t.Context(), a)
				h.detach(a)
				return err
			})
			if diff := cmp.Diff(before, h.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}
