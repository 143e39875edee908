// Package overlay has the stories of networks of several hosts: the built programs, a
// real etcd, the kernel's VXLAN, packets.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// build builds the programs once.
var build = sync.OnceValues(func() (string, error) { return lab.Build("../../test/e2e/peer") })

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := build(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// story is three hosts.
type story struct {
	*lab.Lab
	t        testing.TB
	ctx      context.Context
	programs string // directory of what was built
}

// newStory makes three hosts without services.
func newStory(t testing.TB) *story {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces take root: run it as root (make test)")
	}
	programs, err := build()
	must(t, err)
	l, err := lab.New(t.Context(), 3, filepath.Join(programs, "netcleat"))
	must(t, err)
	s := &story{Lab: l, t: t, ctx: t.Context(), programs: programs}
	t.Cleanup(func() {
		if t.Failed() {
			s.describe()
		}
		must(t, l.Close())
	})
	return s
}

// peer is the program that is both ends of traffic.
func (s *story) peer() string { return filepath.Join(s.programs, "peer") }

// describe says what explains a failure.
func (s *story) describe() {
	for _, h := range s.Hosts {
		out, _ := h.Sh(context.Background(), "ip -br addr; ip -d link show type vxlan; ip neigh | head -40; bridge fdb | grep vxlan | head -40; nft list ruleset")
		s.t.Logf("%s:\n%s\ndaemon: %s", h.Name, out, h.Log(lab.Daemon))
	}
}

// withEtcd starts etcd and the daemons.
func withEtcd(t testing.TB, settings ...string) *story {
	t.Helper()
	s := newStory(t)
	s.More = strings.Join(settings, "\n")
	must(t, s.StartEtcd(s.ctx))
	for _, h := range s.Hosts {
		must(t, h.StartDaemon(s.ctx))
	}
	for _, h := range s.Hosts {
		must(t, h.Running(s.ctx))
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// web is an overlay network of both families, in blocks of sixteen.
const web = `{"cniVersion": "1.1.0", "name": "web", "plugins": [
	{"type": "bridge", "bridge": "web0", "isDefaultGateway": true, "ipMasq": true, "vxlan": {"id": 100, "dev": "up0"},
	 "ipam": {"type": "cluster-local", "blockSize": 28, "ranges": [[{"subnet": "10.100.0.0/24"}], [{"subnet": "fd00:100::/64"}]]}},
	{"type": "portmap", "capabilities": {"portMappings": true}}]}`

// shop is another one.
var shop = strings.NewReplacer(`"web"`, `"shop"`, "web0", "shop0", `"id": 100`, `"id": 101`, "10.100.", "10.101.", "fd00:100:", "fd00:101:").Replace(web)

func (s *story) add(h *lab.Host, list, name string) *lab.Container {
	s.t.Helper()
	c, err := h.Attach(s.ctx, list, name, "")
	must(s.t, err)
	return c
}

// reaches has a container reach another one by all addresses, at once.
func (s *story) reaches(from, to *lab.Container) {
	s.t.Helper()
	for _, a := range to.Addr {
		if err := from.Ping(s.ctx, a); err != nil {
			s.t.Errorf("%s on %s to %s on %s: %v", from.Name, from.Host.Name, to.Name, to.Host.Name, err)
		}
	}
}

// all has each container reach each.
func (s *story) all(cs ...*lab.Container) {
	s.t.Helper()
	for _, from := range cs {
		for _, to := range cs {
			if from != to {
				s.reaches(from, to)
			}
		}
	}
}

// apart fails the test where a container reaches another one.
func (s *story) apart(from, to *lab.Container) {
	s.t.Helper()
	for _, a := range to.Addr {
		if out, err := from.In(s.ctx, "ping", "-c1", "-W1", a.String()); err == nil {
			s.t.Errorf("%s on %s reaches %s on %s:\n%s", from.Name, from.Host.Name, to.Name, to.Host.Name, out)
		}
	}
}

// inStep waits until each host's kernel forwards as etcd says.
func (s *story) inStep() {
	s.t.Helper()
	for _, h := range s.Hosts {
		must(s.t, lab.Until(s.ctx, h.Name+" forwards as etcd says", func() error {
			out, err := h.Netcleat(s.ctx, "cluster", "check")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return s.forwards(h, "vxlan100")
		}))
	}
}

// Containers of three hosts reach each other by IPv4 and IPv6, with packets as large as
// their interfaces take, and not those of another network.
func TestThreeHosts(t *testing.T) {
	s := withEtcd(t)
	h1, h2, h3 := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	a, b, c := s.add(h1, web, "a"), s.add(h2, web, "b"), s.add(h3, web, "c")
	s.all(a, b, c)
	for _, x := range []*lab.Container{a, b, c} {
		must(t, x.Check(s.ctx))
	}
	s.large(a, c)
	s.tcp(a, c)
	s.paired(a, b, c)
	out, err := h1.Netcleat(s.ctx, "graph", "web")
	for _, h := range []*lab.Host{h2, h3} {
		if err != nil || !strings.Contains(out, "vxlan100 ═══ host "+h.Name+" at "+h.Addr.String()+"  10.100.0.") || strings.Contains(out, "not reached") {
			t.Errorf("graph: %v\n%s", err, out)
		}
	}

	x, y := s.add(h1, shop, "x"), s.add(h3, shop, "y")
	s.all(x, y)
	s.apart(x, c)
	s.apart(c, x)
	s.apart(a, y)

	// A container that moves to another host keeps nothing, and leaves nothing.
	must(t, b.Detach(s.ctx))
	s.apart(a, b)
	if out, err := h2.Sh(s.ctx, "! ip -br link show type veth | grep '^veth' && ! find /run/netcleat /var/lib/cni | grep "+b.Addr[0].String()+" && ! bridge fdb | grep "+b.MAC); err != nil {
		t.Errorf("left behind on %s: %s", h2.Name, out)
	}
	moved := s.add(h3, web, "b")
	if slices.Equal(moved.Addr, b.Addr) || moved.MAC == b.MAC {
		t.Errorf("moved with %v and %s", moved.Addr, moved.MAC)
	}
	s.all(a, c, moved)
	s.inStep()
}

// large sends packets as large as the interface takes.
func (s *story) large(from, to *lab.Container) {
	s.t.Helper()
	for _, a := range to.Addr {
		size := 1450 - 28
		if a.Is6() {
			size -= 20
		}
		if out, err := from.In(s.ctx, "ping", "-c1", "-W3", "-M", "do", "-s", fmt.Sprint(size), a.String()); err != nil {
			s.t.Errorf("%d bytes: %v\n%s", size, err, out)
		}
		if out, err := from.In(s.ctx, "ping", "-c1", "-W1", "-M", "do", "-s", fmt.Sprint(size+1), a.String()); err == nil || !strings.Contains(out, "message too long") {
			s.t.Errorf("%d bytes: %v\n%s", size+1, err, out)
		}
	}
}

// tcp carries a file from one container to another.
func (s *story) tcp(from, to *lab.Container) {
	s.t.Helper()
	s.serveFile(to)
	for _, a := range to.Addr {
		url := "http://" + netip.AddrPortFrom(a, 80).String() + "/file"
		must(s.t, lab.Until(s.ctx, url+" is served", func() error {
			out, err := from.In(s.ctx, "curl", "-sS", "--max-time", "20", "-o", "/run/got", "-w", "%{size_download}", url)
			if err == nil && out != "3000000" {
				err = errors.New(out)
			}
			return err
		}))
	}
}

// serveFile has a container serve a file of 3,000,000 bytes.
func (s *story) serveFile(c *lab.Container) {
	s.t.Helper()
	_, err := c.Host.Sh(s.ctx, "mkdir -p /run/www && head -c 3000000 /dev/urandom >/run/www/file && (ip netns exec "+c.Name+" busybox httpd -f -p 80 -h /run/www >/dev/null 2>&1 &)")
	must(s.t, err)
}

// download begins to download the file, slowly, and returns when some of it is there. The
// function that it returns waits for the end and says how much came.
func (s *story) download(from, to *lab.Container) (ended func() string) {
	s.t.Helper()
	_, err := from.Host.Sh(s.ctx, fmt.Sprintf("rm -f /run/size; (ip netns exec %s curl -sS --retry 5 --retry-connrefused --limit-rate 1000000 -o /run/slow -w '%%{size_download}' http://%s/file >/run/size.new 2>&1; mv /run/size.new /run/size) >/dev/null 2>&1 &", from.Name, to.Addr[0]))
	must(s.t, err)
	must(s.t, lab.Until(s.ctx, "the download has begun", func() error {
		_, err := from.Host.Run(s.ctx, "test", "-s", "/run/slow")
		return err
	}))
	return func() (size string) {
		must(s.t, lab.Until(s.ctx, "the download has ended", func() error {
			b, err := os.ReadFile(from.Host.Path("/run/size"))
			size = string(b)
			return err
		}))
		return size
	}
}

// paired looks whether the addresses of a container are at the same place.
func (s *story) paired(cs ...*lab.Container) {
	s.t.Helper()
	for _, c := range cs {
		four, six := c.Addr[0].As4(), c.Addr[1].As16()
		if four[3] != six[15] || c.MAC != fmt.Sprintf("0a:6e:%02x:%02x:%02x:%02x", four[0], four[1], four[2], four[3]) {
			s.t.Errorf("%s has %v and the MAC address %s", c.Name, c.Addr, c.MAC)
		}
	}
}

// A container that sends VXLAN packets itself reaches no other network, neither on
// another host nor on its own; without the rules it would.
func TestOwnPackets(t *testing.T) {
	s := withEtcd(t)
	h1, h3 := s.Hosts[0], s.Hosts[2]
	evil := s.add(h1, web, "evil")
	s.add(h3, web, "c")
	x, y := s.add(h1, shop, "x"), s.add(h3, shop, "y")
	for to, host := range map[*lab.Container]string{y: h3.Addr.String(), x: "10.100.0.1"} {
		if n := s.smuggled(evil, to, host); n != 0 {
			t.Errorf("%d packets reached %s on %s", n, to.Name, to.Host.Name)
		}
	}
	_, err := h1.Run(s.ctx, "nft", "delete", "table", "inet", "cni_vxlan")
	must(t, err)
	for to, host := range map[*lab.Container]string{y: h3.Addr.String(), x: "10.100.0.1"} {
		if n := s.smuggled(evil, to, host); n == 0 {
			t.Errorf("without the rules no packet reached %s on %s either: this tests nothing", to.Name, to.Host.Name)
		}
	}
	out, err := h1.Netcleat(s.ctx, "reconcile")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if n := s.smuggled(evil, y, h3.Addr.String()); n != 0 {
		t.Errorf("after reconcile %d packets reached y", n)
	}
}

// smuggled has a container of web send packets to one of shop, in VXLAN packets of its
// own to a host, and returns how many arrive.
func (s *story) smuggled(from, to *lab.Container, host string) (n int) {
	s.t.Helper()
	must(s.t, s.script(to, "nft delete table ip smuggled 2>/dev/null; nft 'table ip smuggled { chain c { type filter hook input priority 0; ip saddr 10.101.0.200 counter; }; }'"))
	must(s.t, s.script(from, fmt.Sprintf(`
		ip link del vx0 2>/dev/null || true
		ip link add vx0 address 0a:6e:0a:65:00:c8 type vxlan id 101 remote %s dstport 4789 dev eth0
		ip addr add 10.101.0.200/24 dev vx0
		ip link set vx0 up
		ip neigh replace %s lladdr %s dev vx0
		ping -c3 -i0.2 -W1 %[2]s || true`, host, to.Addr[0], to.MAC)))
	out, err := to.In(s.ctx, "nft", "list", "table", "ip", "smuggled")
	must(s.t, err)
	_, counter, _ := strings.Cut(out, "counter packets ")
	_, err = fmt.Sscan(counter, &n)
	must(s.t, err)
	return n
}

// script runs a script in a container.
func (s *story) script(c *lab.Container, script string) error {
	out, err := c.In(s.ctx, "sh", "-c", script)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return err
}

// Killed daemons and members of etcd lose no packet; a host that is cut off is reached
// again when it is back; what was changed meanwhile is repaired.
func TestForwardingStays(t *testing.T) {
	s := withEtcd(t)
	h1, h2, h3 := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	a, c := s.add(h1, web, "a"), s.add(h3, web, "c")
	s.all(a, c)
	lost := s.under(a, c, func() {
		for _, h := range s.Hosts {
			must(t, h.Kill(s.ctx, lab.Daemon))
		}
		must(t, h2.Kill(s.ctx, lab.Etcd))
		must(t, h3.Kill(s.ctx, lab.Etcd))
		must(t, h1.Kill(s.ctx, lab.Etcd))
		for _, h := range s.Hosts {
			must(t, h.StartMember(s.ctx))
		}
		for _, h := range s.Hosts {
			must(t, h.StartDaemon(s.ctx))
		}
		for _, h := range s.Hosts {
			must(t, h.Running(s.ctx))
		}
	})
	if lost != "0%" {
		t.Errorf("%s of the packets were lost while daemons and etcd were killed", lost)
	}

	// Somebody deletes and adds entries while the daemon is off: it repairs them.
	must(t, h1.Kill(s.ctx, lab.Daemon))
	_, err := h1.Sh(s.ctx, fmt.Sprintf("bridge fdb del %s dev vxlan100 self; ip neigh del %s dev web0; bridge fdb add 0a:6e:0a:64:00:f0 dev vxlan100 dst 192.0.2.77 self", c.MAC, c.Addr[0]))
	must(t, err)
	must(t, h1.StartDaemon(s.ctx))
	s.inStep()
	s.all(a, c)

	// A host that is cut off. A connection with a container there survives it.
	s.serveFile(c)
	ended := s.download(a, c)
	must(t, h3.Cut(s.ctx))
	s.apart(a, c)
	d := s.add(h2, web, "d")
	must(t, lab.Until(s.ctx, "a daemon that was connected with the member of etcd that is cut off finds another", func() error { return a.Ping(s.ctx, d.Addr[0]) }))
	s.all(a, d)
	must(t, h3.Join(s.ctx))
	must(t, lab.Until(s.ctx, "the host that was cut off is reached", func() error { return errors.Join(a.Ping(s.ctx, c.Addr[0]), d.Ping(s.ctx, c.Addr[0])) }))
	must(t, lab.Until(s.ctx, "it reaches what came meanwhile", func() error { return c.Ping(s.ctx, d.Addr[1]) }))
	if got := ended(); got != "3000000" {
		t.Errorf("the connection did not survive that a host was cut off: %s", got)
	}
	s.inStep()
}

// under sends packets all the while and returns how many were lost.
func (s *story) under(from, to *lab.Container, disturb func()) string {
	s.t.Helper()
	sent, received := s.packets(from, to, disturb)
	return fmt.Sprintf("%.3g%%", 100*float64(sent-received)/float64(max(1, sent)))
}

// packets sends a hundred packets a second all the while, and returns how many it sent and
// how many answers came.
func (s *story) packets(from, to *lab.Container, disturb func()) (sent, received int) {
	s.t.Helper()
	_, err := from.Host.Sh(s.ctx, fmt.Sprintf("ip netns exec %s ping -i 0.01 -q %s >/run/pings 2>&1 & echo $! >/run/pings.pid", from.Name, to.Addr[0]))
	must(s.t, err)
	disturb()
	_, err = from.Host.Sh(s.ctx, "kill -INT $(cat /run/pings.pid); while kill -0 $(cat /run/pings.pid) 2>/dev/null; do sleep 0.05; done")
	must(s.t, err)
	b, err := os.ReadFile(from.Host.Path("/run/pings"))
	must(s.t, err)
	_, statistics, _ := strings.Cut(string(b), "statistics ---")
	if _, err := fmt.Sscanf(strings.TrimSpace(statistics), "%d packets transmitted, %d received", &sent, &received); err != nil || sent == 0 {
		s.t.Fatalf("ping: %v: %s", err, b)
	}
	s.t.Logf("%d of %d packets were answered", received, sent)
	return sent, received
}

// Two thousand entries stay, though the neighbour table is over the size at which the
// kernel collects idle ones.
func TestManyEntries(t *testing.T) {
	s := withEtcd(t)
	h1, h3 := s.Hosts[0], s.Hosts[2]
	large := strings.NewReplacer(`"blockSize": 28`, `"blockSize": 21`, "10.100.0.0/24", "10.100.0.0/16").Replace(web)
	a, c := s.add(h1, large, "a"), s.add(h3, large, "c")
	s.all(a, c)
	count := func() (n int) {
		out, err := h1.Sh(s.ctx, "ip -4 neigh show dev web0 nud permanent | wc -l")
		must(t, err)
		_, err = fmt.Sscan(out, &n)
		must(t, err)
		return n
	}
	before := count()
	if before < 2000 {
		t.Fatalf("%d entries", before)
	}
	idle, cancel := context.WithTimeout(s.ctx, idleTime())
	<-idle.Done()
	cancel()
	if after := count(); after != before {
		t.Errorf("%d of %d entries stayed", after, before)
	}
	s.all(a, c)
}

// idleTime is how long entries have to stay unused.
func idleTime() time.Duration {
	if os.Getenv("FAULTS") == "all" {
		return 3 * time.Minute
	}
	return 10 * time.Second
}
