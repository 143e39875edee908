package show_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/journal"
)

// What is configured and what is attached has a name, also where something else
// cannot be read.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	p := show.Places{Journal: journal.Dir(filepath.Join(dir, "run")), Cache: filepath.Join(dir, "cache"), NetConf: filepath.Join(dir, "net.d")}
	for path, text := range map[string]string{
		"net.d/10-nat.conflist":  `{"cniVersion":"1.1.0","name":"nat","plugins":[{"type":"bridge"}]}`,
		"net.d/20-lan.conf":      `{"cniVersion":"0.4.0","name":"lan","type":"macvlan"}`,
		"net.d/30-bad.conflist":  `{`,
		"cache/nat-web-eth0":     `{"containerId":"4f2a","ifName":"eth0","networkName":"nat","cniArgs":[["K8S_POD_NAMESPACE","shop"],["K8S_POD_NAME","web"]]}`,
		"cache/old-db-eth0":      `{"containerId":"9c1d","ifName":"eth0","networkName":"old"}`,
		"cache/old-db-eth1":      `{"containerId":"9c1d","ifName":"eth1","networkName":"old"}`,
		"cache/of-another-thing": `[`,
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	names, err := show.Names(p)
	if d := cmp.Diff([]string{"lan", "nat", "old"}, names); d != "" || err == nil {
		t.Errorf("%v -want +got:\n%s", err, d)
	}
	names, err = show.Containers(p)
	if d := cmp.Diff([]string{"4f2a", "9c1d", "shop/web"}, names); d != "" || err == nil {
		t.Errorf("%v -want +got:\n%s", err, d)
	}
}
