package firewall_test

import (
	"os"
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
				w.IP("link", "set", port, "alias", veth.Alias(journal.Key{Network: "net0", ContainerID: id, IfName: "eth0"}))
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
