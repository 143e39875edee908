package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

func network(blocks ...Block) *Network {
	return &Network{
		VXLAN: &vxlan.Conf{ID: 7, Port: 4789}, Bridge: "br0", Blocks: blocks,
		Subnets:  []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/64")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")},
	}
}

func block(v4, v6, host string) Block {
	return Block{[]netip.Prefix{netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)}, netip.MustParseAddr(host)}
}

func uplink(t *testing.T) (*nltest.Bed, *nl.Conn) {
	t.Helper()
	bed := nltest.New(t)
	bed.IPBatch("link add br0 up type bridge\nlink add vxlan7 master br0 up type vxlan id 7 local 192.0.2.1 dstport 4789 nolearning\n")
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return bed, c
}

func program(t *testing.T, c *nl.Conn, n *Network) State {
	t.Helper()
	s, err := Program(c, n)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Compare(c, n); err != nil || again.Missing+again.Extra > 0 {
		t.Errorf("afterwards %d are missing and %d too many: %v", again.Missing, again.Extra, err)
	}
	return s
}

// Blocks come, move to another host and go; the kernel has their entries, and no others
// of the network.
func TestProgram(t *testing.T) {
	bed, c := uplink(t)
	bed.IP("neigh", "add", "192.0.2.77", "lladdr", "02:00:00:00:00:01", "dev", "br0", "nud", "permanent")
	s := program(t, c, network(block("10.1.0.0/30", "fd00:1::/126", "192.0.2.2")))
	if s.Missing != 3+6 || s.Entries != 3 || s.Host.String() != "192.0.2.1" {
		t.Errorf("%+v", s)
	}
	if got := bed.Run("bridge", "fdb", "show", "dev", "vxlan7"); !strings.Contains(got, "0a:6e:0a:01:00:02 dst 192.0.2.2 self") || !strings.Contains(got, "0a:6e:0a:01:00:02 master br0 static") || strings.Contains(got, "0a:6e:0a:01:00:01") {
		t.Error(got)
	}
	if got := bed.IP("neigh", "show", "dev", "br0", "nud", "permanent"); !strings.Contains(got, "10.1.0.3 lladdr 0a:6e:0a:01:00:03 PERMANENT") || !strings.Contains(got, "fd00:1::3 lladdr 0a:6e:0a:01:00:03 PERMANENT") || strings.Contains(got, "10.1.0.1 ") {
		t.Error(got)
	}
	if s := program(t, c, network(block("10.1.0.0/30", "fd00:1::/126", "192.0.2.3"), block("10.1.0.4/30", "fd00:1::4/126", "192.0.2.2"))); s.Missing != 3+4+8 || s.Extra != 0 {
		t.Errorf("%+v", s)
	}
	bed.Run("bridge", "fdb", "del", "0a:6e:0a:01:00:04", "dev", "vxlan7", "self")
	bed.Run("bridge", "fdb", "del", "0a:6e:0a:01:00:05", "dev", "vxlan7", "master")
	bed.IP("neigh", "del", "10.1.0.6", "dev", "br0")
	bed.Run("bridge", "fdb", "add", "0a:6e:0a:01:07:07", "dev", "vxlan7", "dst", "192.0.2.9", "self")
	if s := program(t, c, network(block("10.1.0.4/30", "fd00:1::4/126", "192.0.2.2"))); s.Missing != 3 || s.Extra != 2*3+6+1 {
		t.Errorf("%+v", s)
	}
	program(t, c, network())
	if got := bed.Run("bridge", "fdb", "show", "dev", "vxlan7") + bed.IP("neigh", "show", "dev", "br0", "nud", "permanent"); strings.Contains(got, "0a:6e:") || !strings.Contains(got, "192.0.2.77") {
		t.Error(got)
	}
}

// A host without the network has nothing to program.
func TestNoUplink(t *testing.T) {
	bed, c := uplink(t)
	bed.IP("link", "set", "vxlan7", "nomaster")
	if _, err := Program(c, network()); !errors.Is(err, ErrNoUplink) {
		t.Error(err)
	}
	bed.IP("link", "del", "vxlan7")
	if _, err := Program(c, network()); !errors.Is(err, ErrNoUplink) {
		t.Error(err)
	}
}

// The blocks of a hundred and of a thousand other hosts: what programming them takes,
// what comparing them takes, and the memory of the kernel.
func BenchmarkProgram(b *testing.B) {
	for _, hosts := range []int{100, 1000} {
		b.Run(fmt.Sprint("hosts=", hosts), func(b *testing.B) { benchmarkHosts(b, hosts) })
	}
}

func benchmarkHosts(b *testing.B, hosts int) {
	b.Helper()
	bed := nltest.New(b)
	bed.IPBatch("link add br0 up type bridge\nlink add vxlan7 master br0 up type vxlan id 7 local 192.0.2.1 dstport 4789 nolearning\n")
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	n := blocksOf(hosts)
	var made, compared time.Duration
	var grown, entries int
	for b.Loop() {
		before, start := slab(b), time.Now()
		s, err := Program(c, n)
		if err != nil {
			b.Fatal(err)
		}
		made += time.Since(start)
		grown, entries = max(grown, slab(b)-before), s.Missing
		start = time.Now()
		if s, err := Compare(c, n); err != nil || s.Missing+s.Extra > 0 {
			b.Fatalf("%+v, %v", s, err)
		}
		compared += time.Since(start)
		if _, err := Program(c, network()); err != nil {
			b.Fatal(err)
		}
	}
	addresses := 64 * hosts
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(addresses), "addresses")
	b.ReportMetric(float64(entries), "changes")
	b.ReportMetric(made.Seconds()*1000/float64(b.N), "program-ms")
	b.ReportMetric(compared.Seconds()*1000/float64(b.N), "compare-ms")
	b.ReportMetric(float64(grown)/float64(addresses), "kernel-bytes/address")
}

// blocksOf are blocks of 64 addresses of both families, one for each host.
func blocksOf(hosts int) *Network {
	n := network()
	four, six := netip.MustParseAddr("10.1.0.0"), netip.MustParseAddr("fd00:1::")
	for i := range hosts {
		n.Blocks = append(n.Blocks, Block{[]netip.Prefix{netip.PrefixFrom(four, 26), netip.PrefixFrom(six, 122)}, netip.AddrFrom4([4]byte{192, 0, byte(2 + i/200), byte(i%200 + 2)})})
		for range 64 {
			four, six = four.Next(), six.Next()
		}
	}
	return n
}

// slab is the memory of the kernel's objects, in bytes.
func slab(b *testing.B) (n int) {
	b.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nSlab:")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		b.Fatal(err)
	}
	return n * 1024
}
