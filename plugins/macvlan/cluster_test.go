package macvlan

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/slot"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// An ADD with an address of the cluster that fails leaves neither a link nor a lease.
func TestClusterLocalLeavesNoTrace(t *testing.T) {
	const conf = `{"cniVersion":"1.1.0","name":"net","type":"macvlan","master":"up0","ipam":{"type":"cluster-local","dataDir":"DATADIR/leases",
		"ranges":[[{"subnet":"10.1.0.0/16"}],[{"subnet":"fd00:1::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}`
	c := nltest.Call{Table: plugin.Table{"macvlan": Plugin, "cluster-local": clusterlocal.Plugin}, Plugin: "macvlan", Conf: conf}
	for at, hit := 1, true; hit && !t.Failed(); at++ {
		hit = false
		t.Run(fmt.Sprintf("refuse change %d", at), func(t *testing.T) { hit = refusedAt(t, c, at) })
	}
}

// refusedAt refuses one change, and reports whether there was one.
func refusedAt(t *testing.T, c nltest.Call, at int) bool {
	t.Helper()
	b := nltest.New(t)
	life.Prepare(b)
	p, err := clusterlocal.ReadPool([]byte(strings.ReplaceAll(c.Conf, "DATADIR", b.Dir)))
	if err != nil {
		t.Fatal(err)
	}
	path := clusterlocal.BlocksFile(string(b.Journal()), p.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, clusterlocal.EncodeBlocks(p, slot.Parts{p.Layout.Whole(1)}), 0o600); err != nil {
		t.Fatal(err)
	}
	before := ofAttachments(b.Snapshot())
	faults := &nltest.Faults{At: at}
	c.Gate = faults.Gate
	a := b.Do(plugin.Add, c)
	switch {
	case faults.Hit() && a.Exit == 0:
		t.Errorf("change %d (%s) was refused and the ADD succeeded", at, faults.What)
	case faults.Hit():
		if diff := cmp.Diff(before, ofAttachments(b.Snapshot())); diff != "" {
			t.Errorf("change %d (%s): %s\nleft behind (-before +after):\n%s", at, faults.What, a.Stdout, diff)
		}
	case a.Exit != 0 || at == 1:
		t.Errorf("change %d: there was none to refuse, yet: %s", at, a.Stdout)
	}
	return faults.Hit()
}

// ofAttachments leaves out what IPAM keeps of a network: its index, its lock and the
// last address.
func ofAttachments(snapshot string) string {
	lines := strings.Split(snapshot, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool {
		return strings.Contains(line, "/.leases-") || strings.Contains(line, "/last_reserved_ip.") || strings.Contains(line, "/lock")
	}), "\n")
}
