package portmap_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/portmap"
)

// TestTakenUnlessDead: a port stays its owner's unless that is provably dead,
// whatever has become of the path of its sandbox and of its record.
func TestTakenUnlessDead(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(record string) string // "" removes it
		taken  bool
		says   string
	}{
		{"as it was", func(r string) string { return r }, true, ""},
		{"no such path", func(r string) string { return netnsPath.ReplaceAllString(r, `"netns":"/no/such"`) }, true, ""},
		{"damaged", func(r string) string { return r[:len(r)/2] }, true, "netcleat forget net1 first --force"},
		{"of a later version", func(r string) string {
			return strings.Replace(netnsPath.ReplaceAllString(r, `"netns":{"path":"x"}`), `"version":1`, `"version":9`, 1)
		}, true, "netcleat forget net1 first --force"},
		{"lost", func(string) string { return "" }, true, "netcleat forget net1 first --force"},
		{"an earlier boot", func(r string) string { return bootID.ReplaceAllString(r, `"boot":1`) }, false, ""},
	} {
		for _, backend := range []string{"nftables", "iptables"} {
			if backend == "iptables" && c.says != "" {
				continue // what iptables has published is known by the record alone
			}
			t.Run(c.what+" "+backend, func(t *testing.T) {
				w := newTown(t)
				w.Must(plugin.Add, w.at(who{"first", "net1", "10.1.0.2"}, backend, tcp8080))
				rewrite(t, w.Dir+"/journal/net1/first:eth0:portmap", c.change)
				second := w.at(who{"second", "net2", "10.1.0.3"}, backend, tcp8080)
				if !c.taken {
					w.Must(plugin.Add, second)
					return
				}
				out := w.Do(plugin.Add, second)
				if code, msg := out.Error(); code != 101 || !strings.Contains(msg, `already published by container "first"`) || !strings.Contains(out.Stdout, c.says) {
					t.Errorf("%s", out.Stdout)
				}
			})
		}
	}
}

var (
	netnsPath = regexp.MustCompile(`"netns":"[^"]*"`)
	bootID    = regexp.MustCompile(`"boot":\d+`)
)

// rewrite changes a file.
func rewrite(t *testing.T, path string, change func(string) string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := change(string(b))
	if text == "" {
		err = os.Remove(path)
	} else {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCollectOwner: what is removed of one container is its own, also where no record
// speaks of the others.
func TestCollectOwner(t *testing.T) {
	w := newTown(t)
	w.Must(plugin.Add, w.at(who{"dead", "net1", "10.1.0.2"}, "nftables", tcp8080))
	w.Must(plugin.Add, w.at(who{"lost", "net1", "10.1.0.3"}, "nftables", strings.Replace(tcp8080, "8080", "8081", 1)))
	for _, id := range []string{"dead", "lost"} {
		rewrite(t, w.Dir+"/journal/net1/"+id+":eth0:portmap", func(string) string { return "" })
	}
	if err := portmap.Collect(t.Context(), nil, w.Journal(), journal.Key{Network: "net1", ContainerID: "dead"}); err != nil {
		t.Fatal(err)
	}
	if out := w.rules(); strings.Contains(out, "dead eth0 net1") || !strings.Contains(out, "8081 comment \"lost eth0 net1\"") {
		t.Errorf("want the port of the other container alone:\n%s", out)
	}
	if err := portmap.Collect(t.Context(), nil, w.Journal(), journal.Key{Network: "net1"}); err != nil {
		t.Fatal(err)
	}
	if out := w.rules(); !strings.Contains(out, "8081 comment \"lost eth0 net1\"") {
		t.Errorf("the network's chain went with a port in it:\n%s", out)
	}
}
