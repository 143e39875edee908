package podman

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/tried"
)

// asks is what a server answers to one container about another.
func (p podman) asks(container, addr, want string) {
	p.t.Helper()
	out, err := p.in(container, "peer", "ask", "tcp", addr)
	if err != nil || strings.TrimSpace(out) != want {
		p.t.Errorf("%s asks %s: want %q, got %q, %v", container, addr, want, out, err)
	}
}

func (p podman) refused(container, addr string) {
	p.t.Helper()
	if out, err := p.in(container, "peer", "ask", "tcp", addr); err == nil {
		p.t.Errorf("%s reaches %s, and must not: %s", container, addr, out)
	}
}

func (p podman) same(what, want, got string) {
	p.t.Helper()
	if want != got {
		p.t.Errorf("%s: want %q, got %q", what, want, got)
	}
}

// A network with a subnet, a range in it, and another gateway than the first
// address; its containers have the address and the MAC that are asked for.
func TestSubnetRangeGateway(t *testing.T) {
	tried.Row(t, "`network create` with subnet, range and gateway; `--ip`, `--mac-address`")
	p := newPodman(t)
	p.do("network", "create", "--subnet=10.60.0.0/24", "--ip-range=10.60.0.128/25", "--gateway=10.60.0.254", "web")
	p.serve("first", "--network=web")
	p.serve("fixed", "--network=web", "--ip=10.60.0.200", "--mac-address=02:00:00:00:60:c8", "--publish=8080:80")
	first, fixed := p.network("first", "web"), p.network("fixed", "web")
	p.same("address in the range", "10.60.0.129", first.IPAddress)
	p.same("gateway", "10.60.0.254", first.Gateway)
	p.same("static address", "10.60.0.200", fixed.IPAddress)
	p.same("static MAC", "02:00:00:00:60:c8", fixed.MacAddress)
	p.asks("first", "10.60.0.200:80", "fixed saw 10.60.0.129")
	p.Wants("fixed saw 10.60.0.254", p.From().TCP("10.60.0.200:80"))
	p.Wants("fixed saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.remove("first", "fixed")
	p.do("network", "rm", "web")
	p.Left()
}

// An internal network reaches its own containers and nobody else.
func TestInternal(t *testing.T) {
	tried.Row(t, "`network create --internal`")
	p := newPodman(t)
	p.do("network", "create", "--internal", "--subnet=10.61.0.0/24", "inner")
	p.serve("a", "--network=inner")
	p.serve("b", "--network=inner")
	a, b := p.network("a", "inner"), p.network("b", "inner")
	p.asks("a", b.IPAddress+":80", "b saw "+a.IPAddress)
	if out, err := p.in("a", "ip", "route", "get", "192.0.2.2"); err == nil {
		t.Errorf("a container of an internal network has a way out: %s", out)
	}
	p.remove("a", "b")
	p.do("network", "rm", "inner")
	p.Left()
}

// IPv6 beside IPv4, with published ports on both.
func TestDualStack(t *testing.T) {
	tried.Row(t, "`network create --ipv6`, published ports on both families")
	p := newPodman(t)
	p.do("network", "create", "--ipv6", "--subnet=fd00:62::/64", "--subnet=10.62.0.0/24", "dual")
	p.serve("a", "--network=dual", "--publish=8080:80", "--publish=[2001:db8::1]:8081:80")
	p.serve("b", "--network=dual")
	a, b := p.network("a", "dual"), p.network("b", "dual")
	p.asks("b", "["+a.GlobalIPv6Address+"]:80", "a saw "+b.GlobalIPv6Address)
	p.asks("b", a.IPAddress+":80", "a saw "+b.IPAddress)
	p.Wants("a saw fd00:62::1", p.From().TCP("["+a.GlobalIPv6Address+"]:80"))
	p.Wants("a saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.Wants("a saw 2001:db8::2", p.LAN().TCP("[2001:db8::1]:8081"))
	p.remove("a", "b")
	p.do("network", "rm", "dual")
	p.Left()
}

// A macvlan network: containers are neighbours of the LAN's hosts.
func TestMacvlan(t *testing.T) {
	tried.Row(t, "`network create --driver=macvlan`")
	p := newPodman(t)
	p.do("network", "create", "--driver=macvlan", "--opt=parent=lan0", "--subnet=192.0.2.0/24", "--gateway=192.0.2.1", "--ip-range=192.0.2.128/25", "street")
	p.serve("web", "--network=street")
	web := p.network("web", "street").IPAddress
	p.same("address", "192.0.2.129", web)
	p.Wants("web saw 192.0.2.2", p.LAN().TCP(web+":80"))
	p.remove("web")
	p.do("network", "rm", "street")
	p.Left()
}

// A container in two networks, which joins a third and leaves it, while its
// connection through the first goes on.
func TestSeveralNetworks(t *testing.T) {
	tried.Row(t, "two networks; `network connect` and `disconnect`")
	p := newPodman(t)
	for _, n := range []string{"one", "two", "three"} {
		p.do("network", "create", n)
	}
	p.serve("both", "--network=one,two", "--publish=8080:80")
	p.serve("a", "--network=one")
	p.serve("b", "--network=two")
	p.serve("c", "--network=three")
	one, two := p.network("both", "one").IPAddress, p.network("both", "two").IPAddress
	talk := p.From().Talk(one + ":7")
	p.asks("a", one+":80", "both saw "+p.network("a", "one").IPAddress)
	p.asks("b", two+":80", "both saw "+p.network("b", "two").IPAddress)
	p.do("network", "connect", "three", "both")
	three := p.network("both", "three").IPAddress
	p.asks("c", three+":80", "both saw "+p.network("c", "three").IPAddress)
	p.do("network", "disconnect", "three", "both")
	p.refused("c", three+":80")
	p.Wants("both saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	talk.End()
	p.remove("both", "a", "b", "c")
	p.do("network", "rm", "one", "two", "three")
	p.Left()
}

// Somebody flushes the rules: a reload makes them again, with the same addresses.
func TestReload(t *testing.T) {
	tried.Row(t, "`network reload` after the rules were flushed")
	p := newPodman(t)
	p.serve("web", "--publish=8080:80")
	before := p.network("web", "podman")
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.Run("nft", "flush", "ruleset")
	p.LAN().Refuses("tcp", "192.0.2.1:8080")
	p.do("network", "reload", "web")
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	if after := p.network("web", "podman"); after != before {
		t.Errorf("attachment: want %+v, got %+v", before, after)
	}
	p.do("network", "reload", "--all")
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.remove("web")
	p.Left("cni-podman0")
}

// Networks that no container uses go, those in use stay.
func TestPrune(t *testing.T) {
	tried.Row(t, "`network prune`")
	p := newPodman(t)
	p.do("network", "create", "used")
	p.do("network", "create", "unused")
	p.serve("web", "--network=used")
	p.serve("brief", "--network=unused")
	p.remove("brief")
	p.same("pruned", "unused", p.do("network", "prune", "--force"))
	p.Wants("web saw 10.89.0.1", p.From().TCP(p.network("web", "used").IPAddress+":80"))
	p.remove("web")
	p.same("pruned", "used", p.do("network", "prune", "--force"))
	p.Left()
}

// A container that dies by itself, and is started again, has the port again.
func TestRestart(t *testing.T) {
	tried.Row(t, "`kill`, `start`, `restart`")
	p := newPodman(t)
	p.serve("web", "--publish=8080:80")
	p.do("kill", "web")
	p.do("wait", "web")
	p.do("start", "web")
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.do("restart", "--time=0", "web")
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.remove("web")
	p.Left("cni-podman0")
}
