package portmap_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// attachedBy writes the record that bridge has of a container.
func (w *town) attachedBy(t *testing.T, network, id, ipam string) {
	t.Helper()
	e, err := w.Journal().Open(t.Context(), journal.Key{Network: network, ContainerID: id, IfName: "eth0", Plugin: "bridge"})
	if err != nil {
		t.Fatal(err)
	}
	e.Config = json.RawMessage(`{"ipam":` + ipam + `}`)
	if err := errors.Join(e.Begin(), e.Done(), e.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestNeighbourMasquerades: two networks share a subnet. One masquerades all connections
// to its ports; the other's container sees its clients' addresses.
func TestNeighbourMasquerades(t *testing.T) {
	const part = `{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/16","rangeStart":"10.1.0.32","rangeEnd":"10.1.0.63"}]]}`
	for _, backend := range []string{"nftables", "iptables"} {
		for name, ipam := range map[string]string{"a range": part, "static": `{"type":"static"}`} {
			t.Run(backend+" "+name, func(t *testing.T) {
				w := newTown(t)
				w.Serve(w.Sandbox, "tcp", "10.1.0.2:80")
				before := w.rules()
				w.attachedBy(t, "all", "a", ipam)
				a := w.at(who{"a", "all", "10.1.0.40"}, backend, `[{"hostPort":8081,"containerPort":80,"protocol":"tcp"}]`)
				a.Conf = strings.Replace(a.Conf, `"type":`, `"masqAll":true,"type":`, 1)
				b := w.at(who{"b", "none", "10.1.0.2"}, backend, `[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]`)
				b.Conf = strings.Replace(b.Conf, `"type":`, `"snat":false,"type":`, 1)
				w.Must(plugin.Add, a)
				w.Must(plugin.Add, b)
				if got := w.Ask(w.lan, "tcp", "192.0.2.1:8080"); got != "192.0.2.9" {
					t.Errorf("the client is seen as %q\n%s", got, w.rules())
				}
				for _, c := range []string{plugin.Check, plugin.Del} {
					w.Must(c, a)
					w.Must(c, b)
				}
				if diff := cmp.Diff(before, w.rules()); diff != "" {
					t.Errorf("left behind (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// TestSingleGoes: the rules of a single address go with its container, those of another
// one of the network stay.
func TestSingleGoes(t *testing.T) {
	for _, lost := range []bool{false, true} {
		w := newTown(t)
		before := w.rules()
		a, b := w.at(who{"a", "net1", "10.1.0.2"}, "nftables", port("8080")), w.at(who{"b", "net1", "10.1.0.3"}, "nftables", port("8081"))
		w.Must(plugin.Add, a)
		w.Must(plugin.Add, b)
		if lost {
			if err := os.Remove(w.Dir + "/journal/net1/a:eth0:portmap"); err != nil {
				t.Fatal(err)
			}
		}
		w.Must(plugin.Del, a)
		if out := w.rules(); strings.Contains(out, "of a\"") || !strings.Contains(out, "of b\"") {
			t.Errorf("record lost: %v: of a and b:\n%s", lost, out)
		}
		w.Must(plugin.Check, b)
		w.Must(plugin.Del, b)
		if diff := cmp.Diff(before, w.rules()); diff != "" {
			t.Errorf("left behind (-before +after):\n%s", diff)
		}
	}
}

// TestSecondInterface: the record of a container's first interface is lost. The ADD of
// its second one leaves what the first has published.
func TestSecondInterface(t *testing.T) {
	w := newTown(t)
	before := w.rules()
	a, b := w.at(who{"a", "net1", "10.1.0.2"}, "iptables", port("8080")), w.at(who{"a", "net1", "10.1.0.3"}, "iptables", port("8081"))
	b.IfName, b.Conf = "eth1", strings.ReplaceAll(b.Conf, `"eth0"`, `"eth1"`)
	w.Must(plugin.Add, a)
	if err := os.Remove(w.Dir + "/journal/net1/a:eth0:portmap"); err != nil {
		t.Fatal(err)
	}
	w.Must(plugin.Add, b)
	w.published(t, "10.1.0.2", "10.1.0.3")
	w.Must(plugin.Check, b)
	w.Must(plugin.Del, b)
	w.published(t, "10.1.0.2")
	w.Must(plugin.Del, a)
	if diff := cmp.Diff(before, w.rules()); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}
