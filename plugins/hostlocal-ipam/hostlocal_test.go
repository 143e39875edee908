package hostlocal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	hostlocal "github.com/netcleat/netcleat/plugins/hostlocal-ipam"
)

var table = plugin.Table{"host-local": hostlocal.Plugin}

const subnet = `"subnet":"10.1.2.0/24"`

// conf returns a configuration with keys in its ipam section.
func conf(ipam string) string {
	return `{"cniVersion":"1.1.0","name":"net","type":"bridge","ipam":{"type":"host-local","dataDir":"DATADIR/leases",` + ipam + `}}`
}

func call(id, ipam string) nltest.Call {
	return nltest.Call{Table: table, Plugin: "host-local", Conf: conf(ipam), ContainerID: id}
}

func addrs(bed *nltest.Bed, c nltest.Call) string {
	var out []string
	for _, ip := range bed.Must(plugin.Add, c).IPs {
		out = append(out, fmt.Sprintf("%s via %s", ip.Address.String(), ip.Gateway))
	}
	return strings.Join(out, ", ")
}

func TestLifecycle(t *testing.T) {
	bed := nltest.New(t)
	dir := filepath.Join(bed.Dir, "leases", "net")
	bed.Must(plugin.Del, call("a", subnet))
	if _, err := os.Stat(dir); err == nil {
		t.Error("DEL made the directory")
	}
	want(t, addrs(bed, call("a", subnet)), "10.1.2.2/24 via 10.1.2.1")
	want(t, addrs(bed, call("b", subnet)), "10.1.2.3/24 via 10.1.2.1")
	want(t, bed.Fails(plugin.Add, call("a", subnet), 100), "failed to allocate for range 0: 10.1.2.2 has been allocated to a, duplicate allocation is not allowed")
	bed.Must(plugin.Check, call("a", subnet))
	bed.Must(plugin.Del, call("a", subnet))
	bed.Must(plugin.Del, call("a", subnet))
	bed.Fails(plugin.Check, call("a", subnet), 102)
	want(t, addrs(bed, call("a", subnet)), "10.1.2.4/24 via 10.1.2.1")
	want(t, read(t, dir, "10.1.2.4"), "a\r\neth0")
	want(t, read(t, dir, "last_reserved_ip.0"), "10.1.2.4")
	bed.Must(plugin.Status, call("a", subnet))
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("want %q\n got %q", want, got)
	}
}
