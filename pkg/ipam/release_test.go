package ipam_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Only dhcp's addresses are given back before the link goes.
func TestRelease(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	for _, name := range []string{"dhcp", "host-local"} {
		script := "#!/bin/sh\necho " + name + " $CNI_COMMAND >>" + log + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		c := &plugin.Call{Verb: plugin.Del, Path: dir, Conf: plugin.Conf{IPAM: plugin.IPAMConf{Type: name}}}
		if err := ipam.Release(context.Background(), c); err != nil {
			t.Error(err)
		}
	}
	if err := ipam.Release(context.Background(), &plugin.Call{Verb: plugin.Del, Path: dir}); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(log); err != nil || string(b) != "dhcp DEL\n" {
		t.Errorf("called: %q (%v)", b, err)
	}
}
