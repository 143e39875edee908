package firewall_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// TestNeighbour: two networks share a bridge and a subnet, on a host that drops. The one
// with firewall is let through, the other one is not.
func TestNeighbour(t *testing.T) {
	for _, h := range hosts {
		for name, c := range map[string]struct{ ipam, scope string }{
			"a range": {`{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/16","rangeStart":"10.1.0.3","rangeEnd":"10.1.0.99"}]]}`, "10.1.0.3/32"},
			"static":  {`{"type":"static"}`, "10.1.0.3/32"},
		} {
			t.Run(h.name+" "+name, func(t *testing.T) {
				w := newTown(t)
				h.prepare(w)
				if h.name == "clean" {
					w.Run("iptables", "-P", "FORWARD", "DROP")
				}
				w.serve()
				before := w.rules()
				w.attachedBy("net0", "a2", `{"ipam":`+c.ipam+`}`)
				open := w.attach("a2", h.conf)
				w.Must(plugin.Add, open)
				if got := w.Ask(w.a2, "tcp", "192.0.2.9:80"); got == "" {
					t.Errorf("the network with firewall is not let through:\n%s", w.rules())
				}
				if got := w.Ask(w.Sandbox, "tcp", "192.0.2.9:80"); got != "" {
					t.Errorf("the network without firewall is let through:\n%s", w.rules())
				}
				r, err := w.Journal().Read(journal.Key{Network: "net0", ContainerID: "a2", IfName: "eth0", Plugin: "firewall"})
				if err != nil || !strings.Contains(string(r.State), `"`+c.scope+`"`) {
					t.Errorf("is for %s (%v), want %s", r.State, err, c.scope)
				}
				w.Must(plugin.Check, open)
				w.Must(plugin.Del, open)
				if diff := cmp.Diff(before, w.rules()); diff != "" {
					t.Errorf("left behind (-before +after):\n%s", diff)
				}
			})
		}
	}
}
