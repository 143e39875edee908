package portmap_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/portmap"
)

// published has a mapping in each map, and conditions.
const published = `[
 {"hostPort":8080,"containerPort":80,"protocol":"tcp"},
 {"hostPort":5353,"containerPort":53,"protocol":"udp"},
 {"hostPort":8082,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.1"},
 {"hostPort":8083,"containerPort":80,"protocol":"tcp","hostIP":"2001:db8::1"}]`

// reconciled restores what the attachment has published.
func (w *town) reconciled(t *testing.T) {
	t.Helper()
	records, err := w.Journal().Network("net1")
	if err != nil || len(records) != 1 {
		t.Fatalf("records: %v, %v", records, err)
	}
	if err := portmap.Reconcile(t.Context(), nil, w.Journal(), records[0]); err != nil {
		t.Error(err)
	}
}

// TestSpoiled: CHECK sees each part that is missing or was changed, Reconcile restores
// it, and so does the ADD of one more container. DEL leaves nothing of what is left.
func TestSpoiled(t *testing.T) {
	for name, more := range map[string]string{
		"nftables": `,"conditionsV4":["ip","saddr","!=","198.51.100.0/24"]`,
		"iptables": `,"conditionsV4":["!","-s","198.51.100.0/24"]`,
		"legacy":   "", // conditions choose the host's iptables
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			backend := strings.Replace(name, "legacy", "", 1)
			if name == "legacy" {
				w.Run("iptables-legacy", "-t", "nat", "-L", "-n")
				w.Run("ip6tables-legacy", "-t", "nat", "-L", "-n")
			}
			before := w.rules()
			c := call(conf(backend, published, more))
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
				another := call(strings.ReplaceAll(conf(backend, `[{"hostPort":9000,"containerPort":80,"protocol":"tcp"}]`, more), "10.1.0.2", "10.1.0.9"))
				another.ContainerID = "another"
				w.Must(plugin.Add, another)
				w.Must(plugin.Check, another)
				w.Must(plugin.Del, another)
				w.reconciled(t)
			})
			w.Must(plugin.Del, c)
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestReload: a ruleset that was saved and loaded is the same to the kernel.
func TestReload(t *testing.T) {
	w := newTown(t)
	conditions := `,"conditionsV4":["ip","saddr","!=","198.51.100.0/24","tcp","sport","!=","5","iifname","!=","x0"],"conditionsV6":["mark","!=","7"]`
	c := call(conf("nftables", published, conditions))
	w.Must(plugin.Add, c)
	before, text := w.KernelRules(), w.rules()
	w.Reload()
	if diff := cmp.Diff(before, w.KernelRules()); diff != "" {
		t.Errorf("to the kernel (-made +loaded):\n%s\n%s", diff, text)
	}
	w.Must(plugin.Check, c)
	w.Must(plugin.Del, c)
}

// TestBothFamiliesGo: the last container of a network removes what others of it
// have made in the other family.
func TestBothFamiliesGo(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			w := newTown(t)
			before := w.rules()
			dual := w.at(who{"dual", "net1", "10.1.0.2"}, backend, `[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]`)
			one := w.at(who{"one", "net1", "10.1.0.3"}, backend, `[{"hostPort":8081,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.1"}]`)
			for _, verb := range []string{plugin.Add, plugin.Del} {
				w.Must(verb, dual)
				w.Must(verb, one)
			}
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}
