package overlay

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// withNames is a network of containers that find each other by name, and by an alias.
func withNames(list, alias string) string {
	network := "web"
	if strings.Contains(list, `"name": "shop"`) {
		network = "shop"
	}
	plugin := fmt.Sprintf(`,{"type": "dnsname", "domainName": "dns.%[1]s", "runtimeConfig": {"aliases": {"%[1]s": ["%[2]s"]}}}]}`, network, alias)
	return strings.TrimSuffix(list, "]}") + plugin
}

// name is what the container is called everywhere: its ID.
func name(c *lab.Container) string { return c.Host.Name + "-" + c.Name }

// answer is what a container's server answers: addresses in their order, or the code.
func (s *story) answer(c *lab.Container, name string) string {
	s.t.Helper()
	programs, err := build()
	must(s.t, err)
	out, err := c.In(s.ctx, filepath.Join(programs, "peer"), "dns", "udp", name)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(out)
}

// resolves waits until a container is answered with addresses, in any order, or the code.
func (s *story) resolves(c *lab.Container, name string, want ...string) {
	s.t.Helper()
	must(s.t, lab.Until(s.ctx, fmt.Sprintf("%s on %s resolves %s to %s", c.Name, c.Host.Name, name, want), func() error {
		got := strings.Fields(s.answer(c, name))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			return errors.New(strings.Join(got, " "))
		}
		return nil
	}))
}

func ip(c *lab.Container) string { return c.Addr[0].String() }

const unknown = "NXDOMAIN"

// Containers find those of other hosts on the same network by name, address and shared
// alias, as long as these are there, and find no others.
func TestNames(t *testing.T) {
	s := withEtcd(t)
	h1, h2, h3 := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	a, b, c := s.add(h1, withNames(web, ""), "a"), s.add(h2, withNames(web, "app"), "b"), s.add(h3, withNames(web, "app"), "c")
	x := s.add(h3, withNames(shop, "app"), "x")
	y := s.add(h1, withNames(shop, ""), "y")
	s.resolves(a, name(c), ip(c))
	s.resolves(b, name(a), ip(a))
	s.resolves(c, name(b)+".dns.web.", ip(b))
	_, err := a.In(s.ctx, "ping", "-c1", "-W3", name(c))
	must(t, err)
	out, err := a.In(s.ctx, "getent", "ahosts", name(c))
	if err != nil || !strings.Contains(out, c.Addr[0].String()) || !strings.Contains(out, c.Addr[1].String()) {
		t.Errorf("%v: %s", err, out)
	}
	for _, addr := range c.Addr {
		if out, err := a.In(s.ctx, "getent", "hosts", addr.String()); err != nil || !strings.Contains(out, name(c)+".dns.web") {
			t.Errorf("%s: %v: %s", addr, err, out)
		}
	}

	// An alias on two hosts: all answers have both, and begin with each in turn.
	s.resolves(a, "app", ip(b), ip(c))
	first := map[string]int{}
	for range 4 {
		first[strings.Fields(s.answer(a, "app"))[0]]++
	}
	if first[ip(b)] != 2 || first[ip(c)] != 2 {
		t.Errorf("the answers begin with %v", first)
	}
	s.resolves(b, "app", ip(b), ip(c))

	// Another network's names are not answered.
	s.resolves(y, name(x), ip(x))
	s.resolves(y, "app", ip(x))
	s.resolves(a, name(x), unknown)
	s.resolves(x, name(b), unknown)

	// A container that is detached has no name.
	must(t, b.Detach(s.ctx))
	s.resolves(a, name(b), unknown)
	s.resolves(a, "app", ip(c))
	s.inStep()
	status, err := h1.Netcleat(s.ctx, "dns", "status")
	if err != nil || !strings.Contains(status, "1 containers of host h3") {
		t.Errorf("%v: %s", err, status)
	}
}

// Names stay while daemons are killed, and while etcd does not answer; nothing waits for
// it. Those of a host of which etcd does not hear are removed, and its addresses are
// not.
func TestNamesOfDeadHosts(t *testing.T) {
	s := withEtcd(t)
	h1, h2, h3 := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	a, b, c := s.add(h1, withNames(web, ""), "a"), s.add(h2, withNames(web, ""), "b"), s.add(h3, withNames(web, ""), "c")
	s.resolves(a, name(c), ip(c))
	s.resolves(c, name(b), ip(b))

	// The daemon of h3 is off: its names stay. What has come meanwhile is told later.
	must(t, h3.Kill(s.ctx, lab.Daemon))
	d := s.add(h3, withNames(web, ""), "d")
	s.resolves(c, name(d), ip(d))
	must(t, c.Detach(s.ctx))
	s.resolves(d, name(c), unknown)
	s.resolves(a, name(c), ip(c))
	must(t, h3.StartDaemon(s.ctx))
	s.resolves(a, name(d), ip(d))
	s.resolves(a, name(c), unknown)

	// So are the daemons of h1, the dns daemon's too, which knows all again when it is back.
	must(t, h1.Kill(s.ctx, lab.Daemon))
	_, err := h1.Sh(s.ctx, "kill -9 $(cat /run/netcleat/.dns.lock)")
	must(t, err)
	if out, err := h1.Netcleat(s.ctx, "dns", "start"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.resolves(a, name(d), ip(d))
	must(t, h1.StartDaemon(s.ctx))

	// etcd does not answer: containers start at once, with names on their host.
	for _, h := range s.Hosts {
		must(t, h.Suspend(s.ctx, lab.Etcd))
	}
	e := s.add(h2, withNames(web, ""), "e")
	s.resolves(b, name(e), ip(e))
	s.resolves(a, name(d), ip(d))
	for _, h := range s.Hosts {
		must(t, h.Resume(s.ctx, lab.Etcd))
	}
	s.resolves(a, name(e), ip(e))

	// h3 is cut off.
	must(t, h3.Cut(s.ctx))
	s.resolves(a, name(d), unknown)
	s.resolves(d, name(b), ip(b))
	out, err := h1.Netcleat(s.ctx, "cluster", "status", "-o", "json")
	if err != nil || !strings.Contains(out, `"host": "h3"`) {
		t.Errorf("%v: %s", err, out)
	}
	must(t, h3.Join(s.ctx))
	s.resolves(a, name(d), ip(d))
	s.resolves(d, name(a), ip(a))
}
