// Package cluster has the stories of several hosts that share ranges of addresses: the
// built programs, a real etcd, containers on macvlan, packets.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// build builds the programs once.
var build = sync.OnceValues(func() (string, error) { return lab.Build("./demo") })

func TestMain(m *testing.M) {
	if what := os.Getenv(measuring); what != "" {
		if err := measure(what); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	if all := os.Getenv(proxying); all != "" {
		if err := lab.Proxies(os.Stdin, os.Stdout, strings.Fields(all)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if dir, err := build(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// story is hosts with etcd and daemons.
type story struct {
	*lab.Lab
	t    testing.TB
	ctx  context.Context
	list string
	all  []*lab.Container
}

// newStory makes three hosts on which all services run.
func newStory(t testing.TB, list string) *story {
	t.Helper()
	s := newHosts(t, 3, list)
	s.startDaemons()
	return s
}

// newHosts makes hosts with etcd.
func newHosts(t testing.TB, n int, list string) *story {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces take root: run it as root (make test)")
	}
	programs, err := build()
	must(t, err)
	l, err := lab.New(t.Context(), n, filepath.Join(programs, "netcleat"))
	must(t, err)
	t.Cleanup(func() {
		for _, h := range l.Hosts {
			if t.Failed() {
				t.Logf("%s: daemon: %s", h.Name, h.Log(lab.Daemon))
			}
		}
		must(t, l.Close())
	})
	s := &story{Lab: l, t: t, ctx: t.Context(), list: list}
	must(t, l.StartEtcd(s.ctx))
	return s
}

// startDaemons starts the daemons, which join the cluster.
func (s *story) startDaemons() {
	s.t.Helper()
	for _, h := range s.Hosts {
		must(s.t, h.Write("/etc/cni/net.d/lan.conflist", s.list))
		must(s.t, h.StartDaemon(s.ctx))
	}
	for _, h := range s.Hosts {
		must(s.t, h.Running(s.ctx))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// add attaches a container, which must get addresses that no other has.
func (s *story) add(h *lab.Host, name string) *lab.Container {
	s.t.Helper()
	c, err := h.Attach(s.ctx, s.list, name, "")
	must(s.t, err)
	s.keep(c)
	return c
}

func (s *story) keep(c *lab.Container) {
	s.t.Helper()
	for _, o := range s.all {
		for i, a := range o.Addr {
			if a == c.Addr[i] {
				s.t.Fatalf("%s on %s and %s on %s have %s", o.Name, o.Host.Name, c.Name, c.Host.Name, a)
			}
		}
	}
	s.all = append(s.all, c)
}

func (s *story) drop(c *lab.Container) {
	for i, o := range s.all {
		if o == c {
			s.all = append(s.all[:i:i], s.all[i+1:]...)
			return
		}
	}
}

// reach has each container reach the next ones, which are on the other hosts and its own,
// by all addresses; the answer must come from the container that has the address.
func (s *story) reach() {
	s.t.Helper()
	for i, from := range s.all {
		for next := 1; next <= min(len(s.Hosts), len(s.all)-1); next++ {
			s.reaches(from, s.all[(i+next)%len(s.all)])
		}
	}
}

func (s *story) reaches(from, to *lab.Container) {
	s.t.Helper()
	for _, a := range to.Addr {
		if err := from.Ping(s.ctx, a); err != nil {
			s.t.Fatalf("%s on %s to %s on %s: %v", from.Name, from.Host.Name, to.Name, to.Host.Name, err)
		}
		mac, err := from.Neighbour(s.ctx, a)
		must(s.t, err)
		if !strings.EqualFold(mac, to.MAC) {
			s.t.Errorf("%s for %s on %s: answered by %s, want %s of %s on %s", a, from.Name, from.Host.Name, mac, to.MAC, to.Name, to.Host.Name)
		}
	}
}

// fails returns the message of an ADD, which must fail with code 11.
func (s *story) fails(h *lab.Host, name, ip string) string {
	s.t.Helper()
	c, err := h.Attach(s.ctx, s.list, name, ip)
	said := (*types.Error)(nil)
	if err == nil || !errors.As(err, &said) || said.Code != types.ErrTryAgainLater {
		s.t.Fatalf("%+v %v: want an error of code %d", c, err, types.ErrTryAgainLater)
	}
	return err.Error()
}

func (s *story) contains(got, want string) {
	s.t.Helper()
	if !strings.Contains(got, want) {
		s.t.Errorf("want %q in:\n%s", want, got)
	}
}

// dual has 30 addresses of each family for containers, in blocks of two.
const dual = `{"cniVersion": "1.1.0", "name": "lan", "plugins": [{"type": "macvlan", "master": "up0", "ipam": {
	"type": "cluster-local", "blockSize": 31, "ranges": [
		[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.128", "rangeEnd": "192.0.2.157", "gateway": "192.0.2.2"}],
		[{"subnet": "2001:db8::/64", "rangeStart": "2001:db8::80", "rangeEnd": "2001:db8::9d", "gateway": "2001:db8::2"}]]}}]}`

// TestMacvlan has containers on three hosts of one LAN reach each other, from one
// definition.
func TestMacvlan(t *testing.T) {
	example, err := os.ReadFile("../../conflist-examples/macvlan-cluster.conflist")
	must(t, err)
	for name, list := range map[string]string{"example": string(example), "dual stack": dual} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t, list)
			for _, h := range s.Hosts {
				for i := range 2 {
					must(t, s.add(h, fmt.Sprint("c", i)).Check(s.ctx))
				}
			}
			s.reach()
			must(t, s.Router(s.ctx, "ping", "-c1", "-W3", s.all[0].Addr[0].String()))
			for _, c := range s.all {
				must(t, c.Detach(s.ctx))
			}
		})
	}
}

// TestHostsFail kills members of etcd, reboots a host, and releases one.
func TestHostsFail(t *testing.T) {
	s := newStory(t, dual)
	h1, h2, h3 := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	for _, h := range s.Hosts {
		s.add(h, "first")
	}

	// One member less: blocks can be claimed.
	must(t, h2.Kill(s.ctx, lab.Etcd))
	for i := range 4 {
		s.add(h1, fmt.Sprint("minority", i))
	}

	// No quorum and no daemon: the host goes on with the blocks that it has.
	must(t, h1.Kill(s.ctx, lab.Etcd))
	must(t, h1.Kill(s.ctx, lab.Daemon))
	c := s.all[len(s.all)-1]
	must(t, c.Detach(s.ctx))
	s.drop(c)
	s.add(h1, "alone")
	s.reach()

	// After a boot the blocks have to be confirmed.
	must(t, h2.Reboot(s.ctx))
	s.drop(s.on(h2))
	s.contains(s.fails(h2, "early", ""), "the daemon has not confirmed this host's blocks since the boot")
	must(t, h1.StartMember(s.ctx))
	must(t, h2.StartMember(s.ctx))
	must(t, h1.StartDaemon(s.ctx))
	must(t, h2.StartDaemon(s.ctx))
	must(t, h2.Running(s.ctx))
	s.add(h2, "after")

	// An address in another host's block.
	other := s.on(h1).Addr[0]
	s.contains(s.fails(h2, "held", other.String()), "the address is in a block of host h1, where it is held")
	idle := s.idle(h1)
	c, err := h2.Attach(s.ctx, s.list, "asked", idle.String())
	must(t, err)
	s.keep(c)
	if c.Addr[0] != idle {
		t.Errorf("asked for %s, got %s", idle, c.Addr[0])
	}
	s.reach()

	s.released(h3)
}

// idle returns an address of a block of the host which no container has.
func (s *story) idle(h *lab.Host) netip.Addr {
	s.t.Helper()
	b, err := os.ReadFile(h.Path("/run/netcleat/.cluster/lan"))
	must(s.t, err)
	for line := range strings.Lines(string(b)) {
		var slot, off, bits uint64
		if n, _ := fmt.Sscanf(line, "part %d %d %d", &slot, &off, &bits); n != 3 {
			continue
		}
		for i := range uint64(1) << bits {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(slot<<1 + off + i)})
			if !s.has(a) {
				return a
			}
		}
	}
	s.t.Fatalf("no idle address:\n%s", b)
	return netip.Addr{}
}

// on returns the first container of a host.
func (s *story) on(h *lab.Host) *lab.Container {
	s.t.Helper()
	for _, c := range s.all {
		if c.Host == h {
			return c
		}
	}
	s.t.Fatal("no container on ", h.Name)
	return nil
}

func (s *story) has(a netip.Addr) bool {
	for _, c := range s.all {
		if c.Addr[0] == a {
			return true
		}
	}
	return false
}

// released has a host that is cut off released by an operator, others use all its
// addresses, and its daemon notice when it returns.
func (s *story) released(h *lab.Host) {
	s.t.Helper()
	must(s.t, h.Cut(s.ctx))
	first := s.on(h)
	s.drop(first)
	out, err := s.Hosts[0].Netcleat(s.ctx, "cluster", "release-host", h.Name)
	if err == nil {
		s.t.Error("it was not asked for the name again: ", out)
	}
	s.contains(out, "use --force to skip the confirmation")
	must(s.t, lab.Until(s.ctx, h.Name+" is released", func() error {
		_, err := s.Hosts[0].Netcleat(s.ctx, "cluster", "release-host", h.Name, "--force")
		return err
	}))
	const whole = 30 // addresses of the network for containers
	for i := len(s.all); i < whole; i++ {
		s.add(s.Hosts[i%2], fmt.Sprint("fill", i))
	}
	msg := s.fails(s.Hosts[0], "full", "")
	s.contains(msg, "no free addresses")
	s.contains(msg, "h1 owns")
	must(s.t, h.Join(s.ctx))
	must(s.t, lab.Until(s.ctx, "the host that returns notices", func() error {
		b, err := os.ReadFile(h.Path("/run/netcleat/.cluster/lan"))
		if err == nil && strings.Contains(string(b), "part") {
			err = errors.New(h.Log(lab.Daemon))
		}
		return err
	}))
	s.contains(h.Log(lab.Daemon), "an operator has released")
	out, _ = h.Netcleat(s.ctx, "doctor") // it exits with 1
	s.contains(out, "container h3-first eth0 has "+first.Addr[0].String()+", which this host does not own any more")
	s.contains(s.fails(h, "returned", ""), "no free addresses")
}

// TestRestore restores etcd from a backup, as a copy of the members' data. Containers
// keep what they have, nothing is handed out twice, and after a reset all goes on.
func TestRestore(t *testing.T) {
	s := newStory(t, dual)
	h1 := s.Hosts[0]
	for _, h := range s.Hosts {
		s.add(h, "before")
	}
	s.stopEtcd()
	for _, h := range s.Hosts {
		must(t, h.Backup(s.ctx))
		must(t, h.StartMember(s.ctx))
	}
	must(t, h1.Running(s.ctx))
	for i := range 3 {
		for _, h := range s.Hosts {
			s.add(h, fmt.Sprint("after", i)) // in blocks that the backup does not know
		}
	}
	s.stopEtcd()
	for _, h := range s.Hosts {
		must(t, h.Restore(s.ctx))
		must(t, h.StartMember(s.ctx))
	}
	for _, h := range s.Hosts {
		must(t, lab.Until(s.ctx, h.Name+" refuses the restored etcd", func() error {
			if log := h.Log(lab.Daemon); !strings.Contains(log, "etcd was restored from an older state") {
				return errors.New(log)
			}
			return nil
		}))
	}
	msg := ""
	for i := 0; msg == ""; i++ {
		c, err := h1.Attach(s.ctx, s.list, fmt.Sprint("refused", i), "")
		if err != nil {
			msg = err.Error()
			break
		}
		s.keep(c)
	}
	s.contains(msg, "etcd was restored from an older state")
	s.contains(msg, "netcleat cluster reset")

	must(t, h1.Kill(s.ctx, lab.Daemon)) // one daemon is started again, the others notice
	must(t, h1.StartDaemon(s.ctx))
	_, err := s.Hosts[1].Netcleat(s.ctx, "cluster", "reset", "--force")
	must(t, err)
	must(t, lab.Until(s.ctx, "all hosts have adopted their blocks", func() error {
		_, err := s.Hosts[1].Netcleat(s.ctx, "cluster", "resume")
		return err
	}))
	for i := range 3 {
		for _, h := range s.Hosts {
			s.add(h, fmt.Sprint("resumed", i))
		}
	}
	s.reach()
}

func (s *story) stopEtcd() {
	s.t.Helper()
	for _, h := range s.Hosts {
		must(s.t, h.Kill(s.ctx, lab.Etcd))
	}
}

// TestDemo runs what make demo-cluster runs.
func TestDemo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces take root: run it as root (make test)")
	}
	programs, err := build()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "demo"), "-conflist", "../../conflist-examples/macvlan-cluster.conflist", "-netcleat", filepath.Join(programs, "netcleat"))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "addresses released") {
		t.Error(err)
	}
}
