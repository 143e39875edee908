package portmap_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// many is a list of n ports in a row.
func many(n, host, container int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`{"hostPort":%d,"containerPort":%d,"protocol":"tcp"}`, host+i, container+i))
	}
	return "[" + strings.Join(list, ",") + "]"
}

// TestManyPorts publishes 10,000 ports at once; the last one leads to the
// container.
func TestManyPorts(t *testing.T) {
	for name, container := range map[string]int{"range": 30000, "shifted": 40000} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			before := w.rules()
			c := call(conf("", many(10000, 30000, container)))
			start := time.Now()
			changes := 0
			c.Gate = func(string) error { changes++; return nil }
			w.Must(plugin.Add, c)
			t.Logf("ADD of 10,000 ports: %v, %d changes", time.Since(start), changes)
			if changes > 2 { // the transaction, and route_localnet
				t.Errorf("%d changes, want one transaction", changes)
			}
			w.Serve(w.Sandbox, "tcp", fmt.Sprintf("10.1.0.2:%d", container+9999))
			if got := w.Ask(w.lan, "tcp", "192.0.2.1:39999"); got != "192.0.2.9" {
				t.Errorf("last port: %q", got)
			}
			start = time.Now()
			w.Must(plugin.Del, c)
			t.Logf("DEL: %v", time.Since(start))
			if w.rules() != before {
				t.Error("left behind")
			}
		})
	}
}
