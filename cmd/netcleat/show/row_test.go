package show_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/bridge"
)

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
	if err := show.PrintRows(&out, rows, "table"); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("listed %d attachments in %v", len(rows), took)
	if n := strings.Count(out.String(), show.Healthy+"\n"); n != sandboxes*each {
		t.Errorf("%d of %d are %s:\n%.2000s", n, sandboxes*each, show.Healthy, &out)
	}
}
