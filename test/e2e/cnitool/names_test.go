package cnitool

import (
	"slices"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/tried"
)

// named are two networks with names.
var named = map[string]string{
	"shop": `{"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "shop", "plugins": [
	 {"type": "bridge", "bridge": "shop0", "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.23.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
	 {"type": "dnsname", "domainName": "dns.shop", "capabilities": {"aliases": true}}]}`,
	"yard": `{"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "yard", "plugins": [
	 {"type": "bridge", "bridge": "yard0", "isGateway": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.24.0.0/24"}]]}},
	 {"type": "dnsname", "domainName": "dns.yard", "capabilities": {"aliases": true}}]}`,
}

// newStreet is a host with the two networks, and with a DNS server of its own on the LAN.
func newStreet(t *testing.T) cnitool {
	t.Helper()
	c := newCnitool(t)
	for name, text := range named {
		c.Write("/etc/cni/net.d/"+name+".conflist", text)
	}
	c.Sh(`echo nameserver 192.0.2.2 >/etc/resolv.conf
		ip netns exec lan dnsmasq --user=root --no-resolv --no-hosts --conf-file=/dev/null --pid-file= --bind-interfaces --listen-address=192.0.2.2 --address=/www.example.org/192.0.2.80`)
	return c
}

// asks is what a namespace is answered by a network's server, over UDP and TCP.
func (c cnitool) asks(namespace, server, name string) string {
	c.t.Helper()
	var all []string
	for _, network := range []string{"udp", "tcp"} {
		got := strings.TrimSpace(c.Run("ip", "netns", "exec", namespace, c.Peer(), "dns", network, name, server))
		all = append(all, got)
	}
	if all[0] != all[1] {
		return strings.Join(all, ", over TCP ")
	}
	return all[0]
}

func (c cnitool) answered(namespace, server, name, want string) {
	c.t.Helper()
	if got := c.asks(namespace, server, name); got != want {
		c.t.Errorf("%s asks %s for %s: want %s, got %s", namespace, server, name, want, got)
	}
}

// TestNames: three namespaces share an alias, two networks have names of their own,
// one of which leads nowhere, on a host that drops what it receives.
func TestNames(t *testing.T) {
	tried.Row(t, "names by `K8S_POD_NAME`, `aliases` in `CAP_ARGS`, two networks, one of them without a way out; `status`, `check`, `gc`; INPUT drops; the daemon is killed")
	c := newStreet(t)
	c.Run("iptables", "-P", "INPUT", "DROP")
	c.Sh("nft add rule ip filter INPUT ct state established accept") // without a counter
	c.Mark()
	caps := `CAP_ARGS={"aliases": {"shop": ["app"]}}`
	var all []string
	for i, name := range []string{"a", "b", "c"} {
		c.namespace(name)
		c.do("add", "shop", name, caps, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME="+name)
		all = append(all, "10.23.0."+string(rune('2'+i)))
	}
	c.namespace("far")
	c.do("add", "yard", "far", "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=far")

	c.answered("a", "10.23.0.1", "b", all[1])
	c.answered("a", "10.23.0.1", "B.dns.shop", all[1])
	c.answered("a", "10.23.0.1", "far", "NXDOMAIN")
	c.answered("a", "10.23.0.1", "www.example.org", "192.0.2.80")
	c.answered("far", "10.24.0.1", "a", "NXDOMAIN")
	c.answered("far", "10.24.0.1", "far", "10.24.0.2")
	c.answered("far", "10.24.0.1", "www.example.org", "REFUSED")
	c.rotates(all)

	c.do("check", "shop", "a", caps, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=a")
	c.do("status", "shop", "a")
	c.Sh("kill -9 $(cat /run/netcleat/.dns.lock)")
	if out, err := c.try("check", "shop", "a", caps, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=a"); err == nil || !strings.Contains(out, "netcleat dns start") {
		t.Errorf("CHECK without a server: %v %s", err, out)
	}
	c.Run(c.Netcleat(), "dns", "start")
	c.answered("a", "10.23.0.1", "b", all[1])
	c.do("del", "shop", "b", caps, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=b")
	c.answered("a", "10.23.0.1", "b", "NXDOMAIN")
	c.do("gc", "shop", "a")
	c.do("del", "yard", "far")
	c.remove("a", "b", "c", "far")
	c.Left("shop0", "yard0")
}

// rotates: answers list all addresses and begin with each in turn, so that a client
// that takes the first reaches all.
func (c cnitool) rotates(all []string) {
	c.t.Helper()
	reached := map[string]bool{}
	for range all {
		got := strings.Fields(c.Run("ip", "netns", "exec", "a", c.Peer(), "dns", "udp", "app", "10.23.0.1"))
		reached[c.In("a").TCP(got[0]+":80")] = true
		slices.Sort(got)
		if !slices.Equal(got, all) {
			c.t.Errorf("app: want %s, got %s", all, got)
		}
	}
	if len(reached) != len(all) {
		c.t.Errorf("app: reached %v", reached)
	}
}
