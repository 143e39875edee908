package clusterlocal_test

import (
	"bufio"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/slot"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
	hostlocal "github.com/netcleat/netcleat/plugins/hostlocal-ipam"
)

var table = plugin.Table{"cluster-local": clusterlocal.Plugin, "host-local": hostlocal.Plugin}

func call(bed *nltest.Bed, id, ipam string) nltest.Call {
	conf := `{"cniVersion":"1.1.0","name":"net","type":"bridge","ipam":{"type":"cluster-local","dataDir":"DATADIR/leases","daemonSocketPath":"` +
		socket(bed) + `",` + ipam + `}}`
	return nltest.Call{Table: table, Plugin: "cluster-local", Conf: conf, ContainerID: id}
}

func socket(bed *nltest.Bed) string { return filepath.Join(bed.Dir, "d.sock") }

const ranges = `"ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"fd00::/64"}]],"exclude":["10.1.2.18"],"blockSize":28`

// pool is the network of a call, as the daemon reads it.
func pool(t *testing.T, bed *nltest.Bed, ipam string) *clusterlocal.Pool {
	t.Helper()
	p, err := clusterlocal.ReadPool([]byte(strings.ReplaceAll(call(bed, "", ipam).Conf, "DATADIR", bed.Dir)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// own writes the blocks file, as the daemon does.
func own(t *testing.T, bed *nltest.Bed, p *clusterlocal.Pool, parts ...slot.Part) {
	t.Helper()
	path := clusterlocal.BlocksFile(string(bed.Journal()), p.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, clusterlocal.EncodeBlocks(p, parts), 0o600); err != nil {
		t.Fatal(err)
	}
}

func addrs(bed *nltest.Bed, c nltest.Call) string {
	var out []string
	for _, ip := range bed.Must(plugin.Add, c).IPs {
		out = append(out, ip.Address.String())
	}
	return strings.Join(out, " ")
}

// held counts the leases.
func held(t *testing.T, bed *nltest.Bed) (n int) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(bed.Dir, "leases", "net"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err == nil {
			n++
		}
	}
	return n
}

// fake is a daemon that answers as it is told.
type fake struct {
	mu     sync.Mutex
	asked  []clusterlocal.Request
	answer func(clusterlocal.Request) string
}

func (f *fake) serve(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.talk(conn)
		}
	}()
}

func (f *fake) talk(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return
	}
	var r clusterlocal.Request
	var a clusterlocal.Answer
	if err := json.Unmarshal(line, &r); err != nil {
		a.Error = err.Error()
	} else {
		f.mu.Lock()
		f.asked = append(f.asked, r)
		f.mu.Unlock()
		a.Error = f.answer(r)
	}
	_ = json.NewEncoder(conn).Encode(a)
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("want %q\n got %q", want, got)
	}
}

// TestBlocks hands out of the host's blocks alone, without a daemon.
func TestBlocks(t *testing.T) {
	bed := nltest.New(t)
	p := pool(t, bed, ranges)
	msg := bed.Fails(plugin.Add, call(bed, "a", ranges), 11)
	if !strings.Contains(msg, "has not confirmed this host's blocks since the boot") {
		t.Error(msg)
	}
	bed.Fails(plugin.Status, call(bed, "", ranges), 50)
	own(t, bed, p, slot.Part{Slot: 1, Off: 0, Bits: 2}, slot.Part{Slot: 3, Off: 8, Bits: 1})
	bed.Must(plugin.Status, call(bed, "", ranges))
	want(t, addrs(bed, call(bed, "a", ranges)), "10.1.2.16/24 fd00::10/64")
	want(t, addrs(bed, call(bed, "b", ranges)), "10.1.2.17/24 fd00::11/64")
	want(t, addrs(bed, call(bed, "c", ranges)), "10.1.2.19/24 fd00::12/64") // .18 is excluded
	want(t, addrs(bed, call(bed, "d", ranges)), "10.1.2.56/24 fd00::13/64")
	want(t, addrs(bed, call(bed, "e", ranges)), "10.1.2.57/24 fd00::38/64")
	msg = bed.Fails(plugin.Add, call(bed, "f", ranges), 11)
	if !strings.Contains(msg, "this host's blocks are used up, and `netcleat cluster daemon` does not answer") {
		t.Error(msg)
	}
	bed.Must(plugin.Check, call(bed, "a", ranges))
	bed.Must(plugin.Del, call(bed, "b", ranges))
	bed.Must(plugin.Del, call(bed, "b", ranges))
	want(t, addrs(bed, call(bed, "f", ranges)), "10.1.2.17/24 fd00::39/64")
	if n := held(t, bed); n != 10 {
		t.Errorf("%d leases are held, want 10", n)
	}
}

// TestAsk asks the daemon where the blocks have no address.
func TestAsk(t *testing.T) {
	bed := nltest.New(t)
	p := pool(t, bed, ranges)
	f := &fake{answer: func(r clusterlocal.Request) string {
		if r.Want == "10.1.2.40" {
			return "the address is in a block of host b, where it is held"
		}
		own(t, bed, p, slot.Part{Slot: 5, Off: 0, Bits: 4})
		return ""
	}}
	f.serve(t, socket(bed))
	want(t, addrs(bed, call(bed, "a", ranges)), "10.1.2.80/24 fd00::50/64")
	want(t, addrs(bed, call(bed, "b", ranges)), "10.1.2.81/24 fd00::51/64")
	wish := call(bed, "c", ranges)
	wish.Args = "IP=10.1.2.40"
	want(t, bed.Fails(plugin.Add, wish, 11), "network net: the address is in a block of host b, where it is held")
	if len(f.asked) != 2 || f.asked[0].Want != "" || f.asked[1].Want != "10.1.2.40" {
		t.Errorf("asked %+v", f.asked)
	}
	if n := held(t, bed); n != 4 {
		t.Errorf("%d leases are held, want 4", n)
	}
}

// TestBlocksOfAnother does not use a file of another boot, lease directory, or
// network.
func TestBlocksOfAnother(t *testing.T) {
	bed := nltest.New(t)
	p := pool(t, bed, ranges)
	own(t, bed, p, slot.Part{Slot: 1, Bits: 4})
	path := clusterlocal.BlocksFile(string(bed.Journal()), "net")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for old, other := range map[string]string{
		"\nboot ": "\nboot 1", "netcleat blocks 1": "netcleat blocks 2", "leases \"": "leases \"/x", "layout 4": "layout 3",
		"part 1 0 4": "part 1 1 4", "part 1 ": "part 16 ", " 4\n": " 5\n",
	} {
		bad := strings.Replace(string(good), old, other, 1)
		if bad == string(good) {
			t.Fatalf("no %q in %q", old, good)
		}
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if a := bed.Do(plugin.Add, call(bed, "a", ranges)); a.Exit == 0 {
			t.Errorf("used:\n%s", bad)
		}
	}
}

// TestRangesOfOneSubnet has ranges with a gap between them: they share the subnet's
// slots, so that no address is in two.
func TestRangesOfOneSubnet(t *testing.T) {
	bed := nltest.New(t)
	const gap = `"ranges":[[{"subnet":"10.1.2.0/24","rangeEnd":"10.1.2.17"},{"subnet":"10.1.2.0/24","rangeStart":"10.1.2.30"}]]`
	p := pool(t, bed, gap)
	if p.Layout.Slots() != 16 {
		t.Fatalf("%s: %d slots", p.Layout, p.Layout.Slots())
	}
	own(t, bed, p, slot.Part{Slot: 1, Bits: 4})
	want(t, addrs(bed, call(bed, "a", gap)), "10.1.2.16/24")
	want(t, addrs(bed, call(bed, "b", gap)), "10.1.2.17/24")
	want(t, addrs(bed, call(bed, "c", gap)), "10.1.2.30/24")
	msg := bed.Fails(plugin.Add, call(bed, "d", `"ranges":[[{"subnet":"10.1.2.0/24","rangeEnd":"10.1.2.9"}],[{"subnet":"10.1.2.0/25","rangeStart":"10.1.2.10"}]]`), 7)
	if !strings.Contains(msg, "subnets 10.1.2.0/24 and 10.1.2.0/25 overlap") {
		t.Error(msg)
	}
}

// TestLimits hands out of the smallest ranges and the largest, with blocks of one
// address and of all. Two addresses of an attachment are at one offset of their ranges.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		ipam string
		part slot.Part
		want string
	}{
		{`"ranges":[[{"subnet":"10.0.0.0/30"}],[{"subnet":"fd00::/126"}]],"blockSize":32`, slot.Part{Slot: 2}, "10.0.0.2/30 fd00::2/126"},
		{`"ranges":[[{"subnet":"10.0.0.0/30"}],[{"subnet":"fd00::/126"}]],"blockSize":30`, slot.Part{Bits: 2}, "10.0.0.2/30 fd00::2/126"},
		{`"ranges":[[{"subnet":"10.0.0.0/12"}],[{"subnet":"fd00::/48"}]],"blockSize":32`, slot.Part{Slot: 1<<20 - 2}, "10.15.255.254/12 fd00::f:fffe/48"},
		{`"ranges":[[{"subnet":"10.0.0.0/12"}],[{"subnet":"fd00::/48"}]],"blockSize":12`, slot.Part{Bits: 20}, "10.0.0.2/12 fd00::2/48"},
		{`"ranges":[[{"subnet":"10.0.0.0/12"}],[{"subnet":"fd00::/112"}]]`, slot.Part{Slot: 1<<10 - 1, Bits: 6}, "10.0.255.192/12 fd00::ffc0/112"},
		{`"subnet":"fd00::/48","blockSize":128`, slot.Part{Slot: 1<<62 - 1}, "fd00::3fff:ffff:ffff:ffff/48"},
		{`"subnet":"fd00::/126","blockSize":126`, slot.Part{Bits: 2}, "fd00::2/126"},
	} {
		bed := nltest.New(t)
		p := pool(t, bed, c.ipam)
		own(t, bed, p, c.part)
		want(t, addrs(bed, call(bed, "a", c.ipam)), c.want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name":"net","ipam":{` + ranges + `}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := clusterlocal.ReadPool(b)
		if err != nil {
			return
		}
		for _, r := range p.Bounds() {
			whole := p.Layout.Whole(r[0])
			for i := range p.Sets {
				x := p.Layout.Prefix(i, whole)
				back, ok := p.Layout.Find(i, x.Addr())
				if !ok || back.Slot != whole.Slot || back.Off != 0 {
					t.Fatalf("slot %d of %s is %s, which is at %+v", r[0], p.Layout, x, back)
				}
			}
		}
		if l, err := slot.ParseLayout(p.Layout.String()); err != nil || l.String() != p.Layout.String() {
			t.Fatalf("%s: %v", p.Layout, err)
		}
	})
}
