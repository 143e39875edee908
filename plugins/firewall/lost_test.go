package firewall_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/veth"
)

// TestLostJournal: the journal is emptied while containers run. DEL and GC leave
// what a container that runs needs, and the last DEL leaves nothing.
func TestLostJournal(t *testing.T) {
	for _, policy := range []string{"open", "same-bridge", "isolated"} {
		t.Run(policy, func(t *testing.T) {
			w := newTown(t)
			before := w.rules()
			a1, a2 := w.attach("a1", `,"ingressPolicy":"`+policy+`"`), w.attach("a2", `,"ingressPolicy":"`+policy+`"`)
			for id, port := range map[string]string{"a1": "veth0", "a2": "veth1"} {
				w.alias("net0", id, port)
			}
			w.Must(plugin.Add, a1)
			w.Must(plugin.Add, a2)
			with := w.rules()
			if err := os.RemoveAll(string(w.Journal())); err != nil {
				t.Fatal(err)
			}
			w.Must(plugin.Del, a1)
			w.IP("link", "del", "veth0")
			gc := w.attach("", "")
			gc.Conf = `{"cniVersion":"1.1.0","name":"net0","type":"firewall","cni.dev/valid-attachments":[{"containerID":"a2","ifname":"eth0"}]}`
			w.Must(plugin.GC, gc)
			if diff := cmp.Diff(with, w.rules()); diff != "" {
				t.Errorf("gone while a2 runs (-before +after):\n%s", diff)
			}
			w.Must(plugin.Del, a2)
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// alias names the containers by their ports, as bridge does.
func (w *town) alias(network, id, port string) {
	w.IP("link", "set", port, "alias", veth.Alias(journal.Key{Network: network, ContainerID: id, IfName: "eth0"}))
}

// remember writes the record that bridge has of a container.
func (w *town) remember(t *testing.T, network, id string) {
	t.Helper()
	e, err := w.Journal().Open(t.Context(), journal.Key{Network: network, ContainerID: id, IfName: "eth0", Plugin: "bridge"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Begin(), e.Done(), e.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestLostRecord: firewall's record of a2 is lost, and bridge's is there. DEL of a1
// leaves what a2 needs; the last DEL leaves nothing, also where it is told nothing.
func TestLostRecord(t *testing.T) {
	for _, policy := range []string{"open", "same-bridge", "isolated"} {
		for _, told := range []string{"prevResult", "nothing"} {
			t.Run(policy+" "+told, func(t *testing.T) {
				w := newTown(t)
				before := w.rules()
				a1, a2 := w.attach("a1", `,"ingressPolicy":"`+policy+`"`), w.attach("a2", `,"ingressPolicy":"`+policy+`"`)
				for id, port := range map[string]string{"a1": "veth0", "a2": "veth1"} {
					w.alias("net0", id, port)
					w.remember(t, "net0", id)
				}
				w.Must(plugin.Add, a1)
				w.Must(plugin.Add, a2)
				with := w.rules()
				if err := os.Remove(w.Dir + "/journal/net0/a2:eth0:firewall"); err != nil {
					t.Fatal(err)
				}
				w.Must(plugin.Del, a1)
				if diff := cmp.Diff(with, w.rules()); diff != "" {
					t.Errorf("gone while a2 runs (-before +after):\n%s", diff)
				}
				if told == "nothing" {
					a2.Conf = `{"cniVersion":"1.0.0","name":"net0","type":"firewall"}`
				}
				w.Must(plugin.Del, a2) // bridge's records and ports of both are still there
				if diff := cmp.Diff(before, w.rules()); diff != "" {
					t.Errorf("left behind (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// TestAnotherNetworkOnTheBridge: two networks are on one bridge, and the journal is
// emptied. DEL of the one's last container leaves the other's policy. One with a
// record that has no firewall is no reason to.
func TestAnotherNetworkOnTheBridge(t *testing.T) {
	for name, recorded := range map[string]bool{"all records lost": false, "without firewall": true} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			before := w.rules()
			const isolated = `,"ingressPolicy":"isolated"`
			a1, a2 := w.attach("a1", isolated), w.attach("a2", isolated)
			a2.Conf = strings.Replace(a2.Conf, `"name":"net0"`, `"name":"other"`, 1)
			w.alias("net0", "a1", "veth0")
			w.alias("other", "a2", "veth1")
			w.Must(plugin.Add, a1)
			if !recorded {
				w.Must(plugin.Add, a2)
			}
			if err := os.RemoveAll(string(w.Journal())); err != nil {
				t.Fatal(err)
			}
			if recorded {
				w.remember(t, "other", "a2")
			}
			w.Must(plugin.Del, a1)
			out := w.rules()
			if kept := strings.Contains(out, `"br0" . "br0"`); kept == recorded {
				t.Errorf("the policy of br0 is kept: %v\n%s", kept, out)
			}
			w.IP("link", "del", "veth0")
			if !recorded {
				w.Must(plugin.Del, a2)
			}
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestOpenNetworkOnTheBridge: as above, and the other network has no policy. What its
// container may have needed goes with its DEL.
func TestOpenNetworkOnTheBridge(t *testing.T) {
	w := newTown(t)
	before := w.rules()
	a1, a2 := w.attach("a1", `,"ingressPolicy":"isolated"`), w.attach("a2", "")
	a2.Conf = strings.Replace(a2.Conf, `"name":"net0"`, `"name":"other"`, 1)
	w.alias("net0", "a1", "veth0")
	w.alias("other", "a2", "veth1")
	w.Must(plugin.Add, a1)
	w.Must(plugin.Add, a2)
	if err := os.RemoveAll(string(w.Journal())); err != nil {
		t.Fatal(err)
	}
	w.Must(plugin.Del, a1)
	w.IP("link", "del", "veth0")
	w.Must(plugin.Del, a2)
	if diff := cmp.Diff(before, w.rules()); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestOthersSingles: a container's record is lost, and nothing names its rules but
// their comments, as with macvlan. The DEL of another one that is told nothing leaves
// them.
func TestOthersSingles(t *testing.T) {
	w := newTown(t)
	before := w.rules()
	a1, a2 := w.attach("a1", ""), w.attach("a2", "")
	if err := os.RemoveAll(string(w.Journal())); err != nil { // and with it what the network hands out
		t.Fatal(err)
	}
	w.Must(plugin.Add, a1)
	w.Must(plugin.Add, a2)
	if err := os.RemoveAll(string(w.Journal())); err != nil {
		t.Fatal(err)
	}
	a1.Conf = `{"cniVersion":"1.0.0","name":"net0","type":"firewall"}`
	w.Must(plugin.Del, a1)
	if out := w.rules(); strings.Contains(out, "of a1") || !strings.Contains(out, "of a2") {
		t.Errorf("of a1 and a2:\n%s", out)
	}
	w.Must(plugin.Del, a2)
	if diff := cmp.Diff(before, w.rules()); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestRenewedIsNotLeaving: an ADD that finds what a killed one left does not mark
// the attachment as one that is being removed.
func TestRenewedIsNotLeaving(t *testing.T) {
	w := newTown(t)
	a1 := w.attach("a1", "")
	w.remember(t, "net0", "a1")
	w.Must(plugin.Add, a1)
	if err := os.Rename(w.Dir+"/journal/net0/a1:eth0:firewall", w.Dir+"/journal/net0/a1:eth0:firewall.pending"); err != nil {
		t.Fatal(err)
	}
	w.Must(plugin.Add, a1)
	if w.Journal().Leaving(journal.Key{Network: "net0", ContainerID: "a1", IfName: "eth0", Plugin: "bridge"}) {
		t.Error("bridge's record is marked as leaving")
	}
}
