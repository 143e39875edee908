package hostlocal_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/ranges"
)

// small has addresses for five.
const small = `"subnet":"10.1.2.0/29"`

// attached makes the record that a main plugin keeps of container id.
func attached(t *testing.T, bed *nltest.Bed, r journal.Record) {
	t.Helper()
	e, err := bed.Journal().Open(context.Background(), r.Key)
	must(t, err)
	r.Version = 1
	e.Record = r
	must(t, errors.Join(e.Begin(), e.Done(), e.Close()))
}

func key(id, name string) journal.Key {
	return journal.Key{Network: "net", ContainerID: id, IfName: "eth0", Plugin: name}
}

func identity(t *testing.T, bed *nltest.Bed, ns *netns.NS) netns.ID {
	t.Helper()
	id, err := netns.Identify(bed.PathOf(ns))
	must(t, err)
	return id
}

// TestDeadSandboxesAreReclaimed fills a range. Of five containers two are dead,
// so two more get an address, and no third.
func TestDeadSandboxesAreReclaimed(t *testing.T) {
	bed := nltest.New(t)
	for _, id := range []string{"dead-veth", "dead-ptp", "live-veth", "live-macvlan", "unknown"} {
		bed.Must(plugin.Add, call(id, small))
	}
	host := identity(t, bed, bed.Host)
	gone := netns.ID{Dev: host.Dev, Ino: 1, Cookie: 1 << 62} // no namespace has this inode
	bed.IP("link", "add", "veth-live", "type", "veth", "peer", "name", "veth-peer")
	var index int
	_, err := fmt.Sscanf(bed.IP("-o", "link", "show", "veth-live"), "%d:", &index)
	must(t, err)
	end := func(name string, index int) []journal.Link { return []journal.Link{{Name: name, Index: index}} }
	attached(t, bed, journal.Record{Key: key("dead-veth", "bridge"), NetnsID: gone, HostID: host, Links: end("veth-dead", 999999)})
	attached(t, bed, journal.Record{Key: key("live-veth", "bridge"), NetnsID: gone, HostID: host, Links: end("renamed", index)})
	attached(t, bed, journal.Record{Key: key("dead-ptp", "ptp"), NetnsID: gone, HostID: host, Links: end("veth-dead2", 999998)})
	attached(t, bed, journal.Record{Key: key("live-macvlan", "macvlan"), NetnsID: identity(t, bed, bed.NewSandbox()), HostID: host})

	before := bed.Do(plugin.Add, call("off", small+`,"reclaim":false`))
	if code, _ := before.Error(); code != 103 {
		t.Fatalf("switched off: %s", before.Stdout)
	}
	got := addrs(bed, call("new1", small)) + " " + addrs(bed, call("new2", small))
	want(t, got, "10.1.2.2/29 via 10.1.2.1 10.1.2.3/29 via 10.1.2.1")
	want(t, bed.Fails(plugin.Add, call("new3", small), 103), "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.6: "+
		"5 of 5 addresses are held, 2 by attachments that live or may live, 3 by owners that the journal does not know; `netcleat doctor` lists them")
	for _, id := range []string{"live-veth", "live-macvlan", "unknown"} {
		bed.Must(plugin.Check, call(id, small))
	}
	// What is left of the dead finds nothing that is its own.
	bed.Must(plugin.Del, call("dead-veth", small))
	bed.Must(plugin.Check, call("new1", small))
}

// TestPublishedAddressOfADeadSandbox has a range of one address, to which a port of a
// dead container is still led: the next container gets the address when that has ended,
// and not where it cannot be ended.
func TestPublishedAddressOfADeadSandbox(t *testing.T) {
	const one = `"subnet":"10.1.2.0/29","rangeStart":"10.1.2.2","rangeEnd":"10.1.2.2"`
	bed := nltest.New(t)
	host := identity(t, bed, bed.Host)
	gone := netns.ID{Dev: host.Dev, Ino: 1, Cookie: 1 << 62}
	refusal := errors.New("refused")
	var detached []string
	publisher := plugin.Spec[struct{}]{
		Name: "portmap", Role: plugin.Chained, Parse: func(*plugin.Call) (struct{}, error) { return struct{}{}, nil }, HasRecord: func(struct{}) bool { return true },
		Del: func(_ context.Context, c *plugin.Call, _ struct{}) error {
			detached = append(detached, c.ContainerID+" "+c.IfName)
			return refusal
		},
	}
	with := func(id string) nltest.Call {
		c := call(id, one)
		c.Table = plugin.Table{"host-local": table["host-local"], "portmap": publisher}
		return c
	}
	bed.Must(plugin.Add, with("dead"))
	attached(t, bed, journal.Record{Key: key("dead", "bridge"), NetnsID: gone, HostID: host, Config: []byte(`{"ipam":{"type":"host-local"}}`)})
	attached(t, bed, journal.Record{Key: key("dead", "portmap"), NetnsID: gone, HostID: host})

	bed.Fails(plugin.Add, with("new"), 103)
	refusal = nil
	want(t, addrs(bed, with("new")), "10.1.2.2/29 via 10.1.2.1")
	want(t, strings.Join(detached, ", "), "dead eth0, dead eth0")
	if _, err := bed.Journal().Read(key("dead", "portmap")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("record of the published port: %v", err)
	}
}

// TestInDoubtALeaseIsKept gives each a record that proves nothing.
func TestInDoubtALeaseIsKept(t *testing.T) {
	bed := nltest.New(t)
	host := identity(t, bed, bed.Host)
	gone := netns.ID{Dev: host.Dev, Ino: 1, Cookie: 1 << 62}
	elsewhere := identity(t, bed, bed.NewSandbox())
	dead := []journal.Link{{Name: "veth-dead", Index: 999999}}
	ids := []string{"other-host", "at-its-path", "no-namespace", "busy", "two-records"}
	for _, id := range ids {
		bed.Must(plugin.Add, call(id, small))
	}
	attached(t, bed, journal.Record{Key: key("other-host", "bridge"), NetnsID: gone, HostID: elsewhere, Links: dead})
	attached(t, bed, journal.Record{Key: key("at-its-path", "bridge"), Netns: bed.Path, NetnsID: identity(t, bed, bed.Sandbox), HostID: host, Links: dead})
	attached(t, bed, journal.Record{Key: key("no-namespace", "macvlan"), HostID: host})
	attached(t, bed, journal.Record{Key: key("busy", "bridge"), NetnsID: gone, HostID: host, Links: dead})
	attached(t, bed, journal.Record{Key: key("two-records", "bridge"), NetnsID: gone, HostID: host, Links: dead})
	attached(t, bed, journal.Record{Key: key("two-records", "portmap"), NetnsID: elsewhere, HostID: host})
	op, err := bed.Journal().Open(context.Background(), key("busy", "bridge"))
	must(t, err)
	bed.Fails(plugin.Add, call("new", small), 103)
	must(t, op.Close())
	for _, id := range ids {
		bed.Must(plugin.Check, call(id, small))
	}
	want(t, addrs(bed, call("new", small)), "10.1.2.5/29 via 10.1.2.1") // busy's
}

// TestRequestedAddressOfADeadSandbox is given to who asks for it.
func TestRequestedAddressOfADeadSandbox(t *testing.T) {
	bed := nltest.New(t)
	host := identity(t, bed, bed.Host)
	bed.Must(plugin.Add, call("dead", small))
	k := call("new", small)
	k.Args = "IP=10.1.2.2"
	if msg := bed.Fails(plugin.Add, k, 103); !strings.Contains(msg, `container "dead" interface "eth0" holds it`) {
		t.Error(msg)
	}
	attached(t, bed, journal.Record{Key: key("dead", "ptp"), NetnsID: netns.ID{Dev: 1, Ino: 1, Cookie: 1 << 62}, HostID: host, Links: []journal.Link{{Name: "veth-dead", Index: 999999}}})
	want(t, addrs(bed, k), "10.1.2.2/29 via 10.1.2.1")
}

// TestTwoReboots fills a range, and reboots the machine twice, the index lost the
// second time: leases of earlier boots go, those of the reference stay.
func TestTwoReboots(t *testing.T) {
	asRoot(t, "mounts a boot ID")
	h := newHost(t, small)
	h.reference(plugin.Add, "reference")
	for i := range 4 {
		h.do(plugin.Add, fmt.Sprint("c", i))
	}
	full := h.run(h.command(plugin.Add, "more"))
	if full.code != 103 {
		t.Fatalf("%+v", full)
	}
	for boot := range 2 {
		h.reboot(fmt.Sprintf("%08d-0000-0000-0000-000000000000", boot))
		if boot == 1 {
			must(t, os.RemoveAll(filepath.Join(h.dir, "journal")))
		}
		if keep := h.run(h.withKeys(`,"reclaim":false`).command(plugin.Add, "off")); keep.code != 103 {
			t.Errorf("boot %d, switched off: %+v", boot, keep)
		}
		for i := range 4 {
			h.do(plugin.Add, fmt.Sprintf("boot%d-%d", boot, i))
		}
		if n := len(h.files()); n != 5 || len(h.holds("reference")) != 1 {
			t.Errorf("boot %d: %v", boot, h.files())
		}
	}
}

func (h *host) withKeys(keys string) *host {
	o := *h
	o.ipam += keys
	return &o
}

// asRoot skips the test for a user who may not do what it needs.
func asRoot(t *testing.T, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: it " + what)
	}
}

// reboot gives all later processes another boot ID.
func (h *host) reboot(id string) {
	h.t.Helper()
	file := filepath.Join(h.dir, "boot_id")
	must(h.t, os.WriteFile(file, []byte(id+"\n"), 0o600))
	h.wrap = []string{"unshare", "-m", "sh", "-c", `mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`, file}
}

// TestFullDisk and its twin answer with the reason and leave nothing behind.
func TestFullDisk(t *testing.T) {
	asRoot(t, "mounts a small disk")
	h := newHost(t, small)
	mounted(t, filepath.Join(h.dir, "leases"), "size=64k,nr_inodes=32")
	h.do(plugin.Add, "a")
	block := filepath.Join(h.dir, "leases", "block")
	must(t, os.WriteFile(block, make([]byte, 4096), 0o600))
	f, err := os.OpenFile(block, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	must(t, f.Close())
	a := h.run(h.command(plugin.Add, "b"))
	if a.code != 5 || !strings.Contains(a.msg, "no space left on device") {
		t.Errorf("%+v", a)
	}
	if len(h.files()) != 1 {
		t.Errorf("left %v", h.files())
	}
	must(t, os.Remove(block))
	h.do(plugin.Add, "b")
}

func TestReadOnlyDirectory(t *testing.T) {
	asRoot(t, "mounts a disk")
	h := newHost(t, small)
	dir := filepath.Join(h.dir, "leases")
	mounted(t, dir, "size=1m")
	h.do(plugin.Add, "a")
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	for _, verb := range []string{plugin.Add, plugin.Del} {
		id := map[string]string{plugin.Add: "b", plugin.Del: "a"}[verb]
		if a := h.run(h.command(verb, id)); a.code != 5 || !strings.Contains(a.msg, "read-only file system") {
			t.Errorf("%s: %+v", verb, a)
		}
	}
	h.do(plugin.Check, "a")
	h.do(plugin.Del, "nobody")
	if a := h.run(h.command(plugin.Status, "")); a.code != 50 {
		t.Errorf("STATUS: %+v", a)
	}
}

func mounted(t *testing.T, dir, options string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

func TestStatusOfAFullPool(t *testing.T) {
	bed := nltest.New(t)
	bed.Must(plugin.Status, call("", small+`,"statusPool":true`))
	for i := range 5 {
		bed.Must(plugin.Add, call(fmt.Sprint("c", i), small))
	}
	bed.Must(plugin.Status, call("", small))
	bed.Fails(plugin.Status, call("", small+`,"statusPool":true`), 50)
}

// TestCheckLooksAtTheVeryAddress and not only for some lease of the container.
func TestCheckLooksAtTheVeryAddress(t *testing.T) {
	bed := nltest.New(t)
	bed.Must(plugin.Add, call("a", small))
	k := call("a", small)
	prev := func(ip string) string {
		return strings.TrimSuffix(call("a", small).Conf, "}") + `,"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"` + ip + `"}]}}`
	}
	k.Conf = prev("10.1.2.2/29")
	bed.Must(plugin.Check, k)
	k.Conf = prev("192.168.0.1/24") // another plugin's
	bed.Must(plugin.Check, k)
	k.Conf = prev("10.1.2.3/29")
	bed.Fails(plugin.Check, k, 102)
}

// TestGCOfMany tells thousands of valid attachments, and as many stale leases.
func TestGCOfMany(t *testing.T) {
	h := newHost(t, `"subnet":"10.1.0.0/16"`)
	h.fill("10.1.%d.%d", 6000, 2)
	must(t, os.WriteFile(filepath.Join(h.leases(), "10.1.200.1"), []byte("fill2"), 0o600))
	must(t, os.WriteFile(filepath.Join(h.leases(), "10.1.200.2"), []byte("old"), 0o600))
	must(t, os.WriteFile(filepath.Join(h.leases(), "10.1.200.3"), []byte("the printer's"), 0o600))
	var valid []string
	for i := 0; i < 6000; i += 2 {
		valid = append(valid, fmt.Sprintf(`{"containerID":"fill%d","ifname":"eth0"}`, i))
	}
	start := time.Now()
	h.do(plugin.GC, strings.Join(valid, ","))
	t.Logf("GC of 3,000 among 6,000: %v", time.Since(start))
	files := h.files()
	if len(files) != 3002 || files["10.1.0.2"] == "" || files["10.1.0.3"] != "" || files["10.1.200.1"] == "" || files["10.1.200.3"] == "" {
		t.Errorf("%d files are left", len(files))
	}
}

// TestGCBesideADD: a container that was attached after GC's list was made is not in
// it, but has its main plugin's record.
func TestGCBesideADD(t *testing.T) {
	bed := nltest.New(t)
	for _, id := range []string{"gone", "new"} {
		bed.Must(plugin.Add, call(id, small))
	}
	attached(t, bed, journal.Record{Key: key("new", "bridge")})
	gc := call("", small)
	gc.Conf = strings.TrimSuffix(gc.Conf, "}") + `,"cni.dev/valid-attachments":[]}`
	bed.Must(plugin.GC, gc)
	bed.Must(plugin.Check, call("new", small))
	bed.Fails(plugin.Check, call("gone", small), 102)
}

// TestLeaseOfTheReferenceIsRead covers what only old leases have: a legacy file
// belongs to all interfaces of its container, and goes last.
func TestLegacyLease(t *testing.T) {
	h := newHost(t, small)
	must(t, os.MkdirAll(h.leases(), 0o755))
	must(t, os.WriteFile(filepath.Join(h.leases(), "10.1.2.2"), []byte("old"), 0o600))
	h.do(plugin.Check, "old")
	if a := h.run(h.command(plugin.Add, "old")); a.code != 100 {
		t.Errorf("%+v", a)
	}
	h.do(plugin.Del, "old")
	if len(h.files()) > 0 {
		t.Errorf("left %v", h.files())
	}
}

func TestSixtyThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 60,000 files")
	}
	h := newHost(t, `"subnet":"10.1.0.0/16"`)
	h.fill("10.1.%d.%d", 65532, 2)
	start := time.Now()
	want(t, h.do(plugin.Add, "a"), "10.1.255.254")
	rebuilt := time.Since(start)
	h.do(plugin.Del, "a")
	best := time.Hour
	for range 10 {
		start = time.Now()
		want(t, h.do(plugin.Add, "a"), "10.1.255.254")
		best = min(best, time.Since(start))
		h.do(plugin.Del, "a")
	}
	t.Logf("one free of 65,533: first %v, then %v", rebuilt, best)
	if best > 100*time.Millisecond {
		t.Errorf("ADD takes %v with an index", best)
	}
}

// A full range of IPv6 cannot be had; what matters is that it is never walked.
func TestHugeRange(t *testing.T) {
	p := lease.Place{Dir: filepath.Join(t.TempDir(), "net"), Index: t.TempDir(), Boot: lease.Boot{ID: 1}}
	s, err := lease.Create(context.Background(), p)
	must(t, err)
	defer s.Close()
	last := netip.MustParseAddr("fd00::ffff:ffff:ffff:ffff")
	for a := netip.MustParseAddr("fd00::1"); a != netip.MustParseAddr("fd00::401"); a = a.Next() {
		must(t, s.Take(a, lease.Owner{ContainerID: "a", IfName: "eth0"}))
	}
	got, ok := s.Free(netip.MustParseAddr("fd00::1"), last)
	if want := netip.MustParseAddr("fd00::401"); !ok || got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if n := s.CountHeld(netip.MustParseAddr("fd00::"), last); n != 0x400 {
		t.Errorf("%d are held", n)
	}
}

func TestPools(t *testing.T) {
	h := newHost(t, `"ranges":[[{"subnet":"10.1.0.0/16"}],[{"subnet":"fd00::/64"}]]`)
	c := &plugin.Call{Verb: plugin.Status, Stdin: []byte(strings.ReplaceAll(conf(h.ipam), "DATADIR", h.dir))}
	c.Conf.Name, c.Conf.CNIVersion, c.Conf.IPAM.DataDir = "net", "1.1.0", filepath.Join(h.dir, "leases")
	for _, wants := range []string{"0 of 65,533", "1 of 65,533"} {
		pools, err := ranges.Pools(t.Context(), c)
		must(t, err)
		want(t, pools[0].String(), wants)
		h.do(plugin.Add, "a"+wants[:1])
	}
}
