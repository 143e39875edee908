// Package cnitool has the stories of namespaces that cnitool attaches, the runtime
// of the specification's authors.
package cnitool

import (
	"os"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

func TestMain(m *testing.M) { os.Exit(tried.Main(m, "cnitool")) }

// list is a network of two families, with all that a runtime may ask for.
const list = `{
  "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "nat",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
      "capabilities": {"mac": true, "ips": true},
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.22.0.0/16"}], [{"subnet": "fd00:22::/64"}]]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    {"type": "firewall"}
  ]
}`

// other is a second network, for a second interface.
const other = `{
  "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "street",
  "plugins": [{"type": "macvlan", "master": "lan0", "ipam": {"type": "host-local", "ranges": [[{"subnet": "198.51.100.0/24", "rangeStart": "198.51.100.128"}]]}}]
}`

// cnitool is the runtime on a host of its own.
type cnitool struct {
	*bed.Host
	t testing.TB
}

func newCnitool(t testing.TB) cnitool {
	t.Helper()
	h := bed.New(t, "busybox", "nft")
	h.OwnEtc()
	h.Write("/etc/cni/net.d/10-nat.conflist", list)
	h.Write("/etc/cni/net.d/20-street.conflist", other)
	tried.Versions(bed.ModuleVersion(t, h.Cnitool()))
	return cnitool{h, t}
}

// namespace makes a namespace, in which a server answers on port 80.
func (c cnitool) namespace(name string) {
	c.t.Helper()
	c.Container(name)
	c.Serve(name, "80")
}

// remove removes namespaces, with what runs in them.
func (c cnitool) remove(names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.Sh("ip netns pids " + name + " | xargs -r kill")
	}
	c.RemoveContainers(names...)
}

// try runs cnitool with variables of its environment.
func (c cnitool) try(verb, network, namespace string, env ...string) (string, error) {
	argv := append([]string{"env", "CNI_PATH=" + c.Plugins, "NETCONFPATH=/etc/cni/net.d"}, env...)
	return c.Try(append(argv, c.Cnitool(), verb, network, "/run/netns/"+namespace)...)
}

// do is try that must succeed.
func (c cnitool) do(verb, network, namespace string, env ...string) string {
	c.t.Helper()
	out, err := c.try(verb, network, namespace, env...)
	if err != nil {
		c.t.Fatalf("cnitool %s %s %s: %v\n%s", verb, network, namespace, err, out)
	}
	return out
}

// wants fails the story where a text has not what it must have.
func (c cnitool) wants(text string, parts ...string) {
	c.t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			c.t.Errorf("%q is not in: %s", part, text)
		}
	}
}

// A namespace on a network: what it asks for it has, CHECK finds it so, and after
// DEL, which may be repeated, nothing is left.
func TestAttach(t *testing.T) {
	tried.Row(t, "`status`, `add`, `check`, `del`, on both families, with `portMappings`, `bandwidth`, `ips` and `mac` in `CAP_ARGS`, and `CNI_ARGS`")
	c := newCnitool(t)
	c.namespace("web")
	c.namespace("db")
	caps := `CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}], "ips": ["10.22.0.42/16", "fd00:22::42/64"], "mac": "02:00:00:00:22:42",
		"bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 16000000, "egressBurst": 800000}}`
	args := "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"
	c.do("status", "nat", "web")
	c.do("add", "nat", "db")
	c.wants(c.do("add", "nat", "web", caps, args), `"cniVersion": "1.1.0"`, "10.22.0.42/16", "fd00:22::42/64", "02:00:00:00:22:42")
	c.do("check", "nat", "web", caps, args)
	c.do("check", "nat", "db")
	c.Wants("web saw 192.0.2.2", c.LAN().TCP("192.0.2.1:8080"))
	c.Wants("web saw 2001:db8::2", c.LAN().TCP("[2001:db8::1]:8080"))
	c.Wants("web saw 10.22.0.2", c.In("db").TCP("10.22.0.42:80"))
	c.Wants("web saw fd00:22::2", c.In("db").TCP("[fd00:22::42]:80"))
	c.wants(c.Run("tc", "qdisc"), "rate 8Mbit", "rate 16Mbit")
	c.Healthy("--deep")
	for range 2 {
		c.do("del", "nat", "web", caps, args)
		c.do("del", "nat", "db")
	}
	c.remove("web", "db")
	c.Left("cni0")
}

// A namespace with an interface on each of two networks.
func TestTwoNetworks(t *testing.T) {
	tried.Row(t, "two networks, `CNI_IFNAME`")
	c := newCnitool(t)
	c.Run("ip", "-n", "lan", "addr", "add", "198.51.100.1/24", "dev", "lan0")
	c.namespace("web")
	c.do("add", "nat", "web")
	c.do("add", "street", "web", "CNI_IFNAME=eth1")
	c.do("check", "street", "web", "CNI_IFNAME=eth1")
	c.Wants("web saw 198.51.100.1", c.LAN().TCP("198.51.100.128:80"))
	c.Wants("web saw 10.22.0.1", c.From().TCP("10.22.0.2:80"))
	c.Healthy("--deep")
	c.do("del", "nat", "web")
	c.Wants("web saw 198.51.100.1", c.LAN().TCP("198.51.100.128:80"))
	c.do("del", "street", "web", "CNI_IFNAME=eth1")
	c.remove("web")
	c.Left("cni0")
}

// The namespace is deleted before DEL.
func TestDeletedNamespace(t *testing.T) {
	tried.Row(t, "`del` of a deleted namespace")
	c := newCnitool(t)
	c.namespace("web")
	caps := `CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}`
	c.do("add", "nat", "web", caps)
	c.remove("web")
	c.do("del", "nat", "web", caps)
	c.Left("cni0")
}

// cnitool names no attachment that is valid when it collects garbage.
func TestGC(t *testing.T) {
	tried.Row(t, "`gc`, which removes every attachment of the network, and of no other")
	c := newCnitool(t)
	c.namespace("web")
	c.do("add", "nat", "web")
	c.do("add", "street", "web", "CNI_IFNAME=eth1")
	c.do("gc", "nat", "web")
	if out, err := c.Try("ip", "-n", "web", "link", "show", "eth0"); err == nil {
		t.Errorf("eth0 is left: %s", out)
	}
	c.do("check", "street", "web", "CNI_IFNAME=eth1")
	c.do("gc", "street", "web")
	c.remove("web")
	c.Left("cni0")
}
