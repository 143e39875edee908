package firewall_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/firewall"
)

// reconciled restores what the only attachment needs.
func (w *town) reconciled(t *testing.T) {
	t.Helper()
	if err := firewall.Reconcile(t.Context(), nil, w.Journal(), w.record(t, "a1")); err != nil {
		t.Error(err)
	}
}

// record is what firewall keeps of a container of net0.
func (w *town) record(t *testing.T, id string) journal.Record {
	t.Helper()
	r, err := w.Journal().Read(journal.Key{Network: "net0", ContainerID: id, IfName: "eth0", Plugin: "firewall"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSpoiled: CHECK sees each part that is missing or was changed, Reconcile restores
// it, and so does the ADD of one more container.
func TestSpoiled(t *testing.T) {
	for _, h := range hosts {
		if h.conf != "" || strings.HasPrefix(h.name, "iptables-nft") {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			w := newTown(t)
			h.prepare(w)
			before := w.rules()
			c := w.attach("a1", `,"ingressPolicy":"isolated"`)
			w.Must(plugin.Add, c)
			made := nltest.Lines(w.rules())
			w.EachSpoil(func(spoil func()) {
				spoil()
				w.Fails(plugin.Check, c, 102)
				w.reconciled(t)
				if diff := cmp.Diff(made, nltest.Lines(w.rules())); diff != "" {
					t.Errorf("reconciled (-made +now):\n%s", diff)
				}
				w.Must(plugin.Check, c)
				spoil()
				another := w.attach("a2", `,"ingressPolicy":"isolated"`)
				w.Must(plugin.Add, another)
				w.Must(plugin.Check, c)
				w.Must(plugin.Del, another)
			})
			w.Must(plugin.Del, c)
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestReload: a ruleset that was saved and loaded, by nft(8) or by iptables(8), lets
// the same packets through, and CHECK passes. What nft(8) cannot keep as it is are
// iptables' own matches.
func TestReload(t *testing.T) {
	for name, reload := range map[string]func(*town){
		"nft": func(w *town) { w.Reload() },
		"iptables": func(w *town) {
			for _, tool := range []string{"iptables", "ip6tables"} {
				w.Run("sh", "-c", tool+"-save -t filter >"+w.Dir+"/saved && "+tool+"-restore "+w.Dir+"/saved")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			before := w.rules()
			w.Run("iptables", "-P", "FORWARD", "DROP")
			w.Run("ip6tables", "-P", "FORWARD", "DROP")
			w.serve()
			c := w.attach("a1", `,"ingressPolicy":"same-bridge"`)
			w.Must(plugin.Add, c)
			reached, isolation := w.reach(), w.isolation()
			reload(w)
			if diff := cmp.Diff(reached, w.reach()); diff != "" || len(reached) == 0 {
				t.Errorf("who reaches whom (-made +loaded):\n%s\n%s", diff, w.rules())
			}
			if diff := cmp.Diff(isolation, w.isolation()); diff != "" {
				t.Errorf("isolation, to the kernel (-made +loaded):\n%s", diff)
			}
			w.Must(plugin.Check, c)
			w.Must(plugin.Del, c)
			w.Run("iptables", "-P", "FORWARD", "ACCEPT")
			w.Run("ip6tables", "-P", "FORWARD", "ACCEPT")
			w.Try("nft", "delete", "table", "ip", "filter")
			w.Try("nft", "delete", "table", "ip6", "filter")
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// isolation is the rules of the table that is ours alone, as the kernel tells them.
func (w *town) isolation() [][]byte {
	return slices.DeleteFunc(w.KernelRules(), func(rule []byte) bool { return rule[0] != unix.NFPROTO_INET })
}
