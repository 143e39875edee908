package podman

import (
	"slices"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/tried"
)

// dns is the answer to a container's question: addresses in their order, or the
// code.
func (p podman) dns(container, network, name string) string {
	p.t.Helper()
	out, err := p.in(container, "peer", "dns", network, name)
	if err != nil {
		return strings.TrimSpace(out) + err.Error()
	}
	return strings.TrimSpace(out)
}

// resolves is what a container is answered over UDP and TCP.
func (p podman) resolves(container, name, want string) {
	p.t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		p.same(container+" asks for "+name+" over "+network, want, p.dns(container, network, name))
	}
}

// TestNames: podman writes dnsname into its networks by itself. Containers find
// each other by name, ID and shared aliases, on the networks that they share, on a
// host that drops what it receives, also when the daemon is killed.
func TestNames(t *testing.T) {
	tried.Row(t, "names, `--network-alias`, `network connect --alias`, `restart`, with the daemon killed and INPUT dropping")
	p := newPodman(t)
	p.Run("iptables", "-P", "INPUT", "DROP")
	p.Mark()
	for _, n := range []string{"one", "two"} {
		p.do("network", "create", n)
	}
	var all []string
	for _, c := range []string{"a", "b", "c"} {
		p.serve(c, "--network=one", "--network-alias=app")
		all = append(all, p.network(c, "one").IPAddress)
	}
	p.serve("other", "--network=two")
	p.resolves("a", "b", all[1])
	p.resolves("a", "B.dns.podman.", all[1])
	p.resolves("a", p.do("inspect", "--format={{.Id}}", "b")[:12], all[1])
	p.resolves("a", "other", "NXDOMAIN")
	p.resolves("other", "a", "NXDOMAIN")
	p.rotates("a", "app", all)

	p.do("network", "connect", "--alias=joined", "two", "a")
	p.resolves("other", "joined", p.network("a", "two").IPAddress)
	p.resolves("a", "other", p.network("other", "two").IPAddress)
	p.do("network", "disconnect", "two", "a")
	p.resolves("other", "joined", "NXDOMAIN")
	p.resolves("other", "a", "NXDOMAIN")

	p.Sh("kill -9 $(cat /run/netcleat/.dns.lock)")
	p.do("restart", "--time=0", "c")
	p.resolves("a", "b", all[1])
	p.resolves("a", "c", p.network("c", "one").IPAddress)
	p.remove("a", "b", "c", "other")
	p.do("network", "rm", "one", "two")
	p.Left()
}

// rotates: answers list all addresses, and begin with each in turn.
func (p podman) rotates(container, name string, all []string) {
	p.t.Helper()
	first := map[string]int{}
	for range 2 * len(all) {
		got := strings.Fields(p.dns(container, "udp", name))
		first[got[0]]++
		slices.Sort(got)
		p.same("all addresses of "+name, strings.Join(all, " "), strings.Join(got, " "))
	}
	for _, a := range all {
		if first[a] != 2 {
			p.t.Errorf("answers begin with %v", first)
		}
	}
}
