package show_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/bridge"
)

// libcni of containerd 1.6 and podman 4 writes no "netns" into its cache: the result
// has the sandbox. What the reference attached is healthy then, too, and a pod's own
// lo is no attachment.
func TestSandboxOfTheResult(t *testing.T) {
	b := nltest.New(t)
	b.Must(plugin.Add, nltest.Call{
		Table: plugin.Table{"bridge": bridge.Plugin}, Plugin: "bridge", Conf: `{"cniVersion":"1.0.0","name":"net","type":"bridge","bridge":"br0"}`,
		ContainerID: "pod", IfName: "eth0", Netns: b.Path,
	})
	cache := t.TempDir()
	entry := func(network, ifName, plugin, interfaces string) {
		list := base64.StdEncoding.EncodeToString([]byte(`{"name":"` + network + `","plugins":[{"type":"` + plugin + `"}]}`))
		text := fmt.Sprintf(`{"kind":"cniCacheV1","containerId":"pod","ifName":%q,"networkName":%q,"config":%q,"result":{"interfaces":[%s]}}`, ifName, network, list, interfaces)
		if err := os.WriteFile(filepath.Join(cache, network+"-pod-"+ifName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	entry("net", "eth0", "bridge", `{"name":"br0"},{"name":"eth0","sandbox":"`+b.Path+`"}`)
	entry("cni-loopback", "lo", "loopback", `{"name":"lo","mac":"00:00:00:00:00:00","sandbox":"`+b.Path+`"}`)
	rows, err := show.Rows(show.Places{Journal: journal.Dir(b.Dir + "/none"), Cache: cache})
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d attachments, want 1: %+v %v", len(rows), rows, err)
	}
	if r := rows[0]; r.Network != "net" || r.Health != show.Healthy || r.Netns != b.Path {
		t.Errorf("%s in %q: %s, want net in %q: %s", r.Network, r.Netns, r.Health, b.Path, show.Healthy)
	}
}

// TestThousandAttachments lists as many in under a second.
func TestThousandAttachments(t *testing.T) {
	if testing.Short() {
		t.Skip("attaches a thousand interfaces")
	}
	const sandboxes, each = 20, 50
	b := nltest.New(t)
	for s := range sandboxes {
		path := b.PathOf(b.NewSandbox())
		for i := range each {
			b.Must(plugin.Add, nltest.Call{
				Table: plugin.Table{"bridge": bridge.Plugin}, Plugin: "bridge", Conf: `{"cniVersion":"1.1.0","name":"net","type":"bridge","bridge":"br0"}`,
				ContainerID: fmt.Sprintf("c%d", s), IfName: fmt.Sprintf("eth%d", i), Netns: path,
			})
		}
	}
	start := time.Now()
	rows, err := show.Rows(show.Places{Journal: b.Journal(), Cache: b.Dir + "/none"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := show.PrintRows(&out, rows, show.Format{Output: "table"}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("listed %d attachments in %v", len(rows), took)
	if n := strings.Count(out.String(), show.Healthy+"\n"); n != sandboxes*each {
		t.Errorf("%d of %d are %s:\n%.2000s", n, sandboxes*each, show.Healthy, &out)
	}
}
