package macvlan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	nltest.NoTrace(t, c, func(b *nltest.Bed) {
		life.Prepare(b)
		p, err := clusterlocal.ReadPool([]byte(strings.ReplaceAll(conf, "DATADIR", b.Dir)))
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
	})
}
