package show

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/netcleat/netcleat/pkg/nltest"
)

// Whatever libcni's cache or a configuration directory holds can be shown.
func FuzzFiles(f *testing.F) {
	for _, name := range []string{"bridge", "macvlan", "host-local"} {
		for _, conf := range nltest.Examples(f, name) {
			f.Add([]byte(conf))
		}
	}
	f.Add([]byte(`{"kind":"cniCacheV1","containerId":"c1","config":"e30=","ifName":"eth0","networkName":"net","cniArgs":[["K","V"]],"capabilityArgs":{"portMappings":[{"hostPort":1}]},"result":{"ips":[{"address":"x"}],"interfaces":[{"name":"eth0","mac":"x"}]}}`))
	f.Add([]byte(`{"name":"n","plugins":[null,7,"x",{"ipam":{"ranges":[[{"subnet":"10.0.0.0/8"}],null]}}]}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(filepath.Join(dir, "x.conflist"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		all, _ := readCache(dir)
		var rows []Row
		for _, c := range all {
			r := Row{}
			c.fill(&r)
			rows = append(rows, r)
		}
		for _, format := range []string{"table", "json", "wide"} {
			if err := PrintRows(&bytes.Buffer{}, rows, Format{Output: format}); err != nil {
				t.Errorf("%s: %v", format, err)
			}
		}
		lists, _ := readConf(dir)
		for _, l := range lists {
			if l.Name == "" || len(l.Plugins) == 0 {
				t.Errorf("%s: taken for a network: %+v", content, l)
			}
		}
	})
}
