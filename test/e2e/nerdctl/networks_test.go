package nerdctl

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

// Networks with a subnet, a range in it, a gateway, and IPv6; containers with
// addresses of their own.
func TestNetworks(t *testing.T) {
	tried.Row(t, "`network create --subnet --ip-range --gateway`; `--ip`, `--mac-address`")
	tried.Row(t, "`network create --ipv6`; `--ip6`")
	tried.Row(t, "a container in two networks")
	tried.Row(t, "`network create --internal`, which nerdctl 1.7 does not have")
	n := newNerdctl(t)
	if out, err := n.try("network", "create", "--internal", "inside"); err == nil || !strings.Contains(out, "unknown flag: --internal") {
		t.Errorf("network create --internal: %v %s", err, out)
	}
	n.do("network", "create", "--subnet=10.60.0.0/24", "--ip-range=10.60.0.128/25", "--gateway=10.60.0.254", "one")
	n.do("network", "create", "--ipv6", "--subnet=10.62.0.0/24", "--subnet=fd00:62::/64", "two")
	n.serve("first", "--network=one")
	n.serve("fixed", "--network=one", "--ip=10.60.0.200", "--mac-address=02:00:00:00:60:c8", "--publish=8080:80")
	n.serve("six", "--network=two", "--ip6=fd00:62::42")
	n.serve("both", "--network=one", "--network=two")
	n.same("address in the range", "10.60.0.129", n.addr("first", "eth0", "-4"))
	n.same("static address", "10.60.0.200", n.addr("fixed", "eth0", "-4"))
	mac, _ := n.in("fixed", "/bin/cat", "/sys/class/net/eth0/address")
	n.same("static MAC", "02:00:00:00:60:c8", mac)
	n.same("static IPv6 address", "fd00:62::42", n.addr("six", "eth0", "-6"))
	n.asks("first", "10.60.0.200:80", "fixed saw 10.60.0.129")
	n.Wants("fixed saw 10.60.0.254", n.From().TCP("10.60.0.200:80"))
	n.Wants("fixed saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.asks("both", "10.60.0.129:80", "first saw "+n.addr("both", "eth0", "-4"))
	n.asks("both", "[fd00:62::42]:80", "six saw "+n.addr("both", "eth1", "-6"))
	n.remove("first", "fixed", "six", "both")
	n.do("network", "rm", "one", "two")
	n.left()
}

// A macvlan network: containers are neighbours of the LAN's hosts.
func TestMacvlan(t *testing.T) { lanNetwork(t, "macvlan") }

// An ipvlan network, likewise.
func TestIPvlan(t *testing.T) { lanNetwork(t, "ipvlan") }

func lanNetwork(t *testing.T, driver string) {
	t.Helper()
	tried.Row(t, "`network create --driver="+driver+"`")
	n := newNerdctl(t)
	if out, err := n.Try("sh", "-c", "ip link add probe link lan0 type "+driver+" && ip link del probe"); err != nil {
		t.Skipf("the kernel has no %s: %s", driver, out)
	}
	// nerdctl refuses a subnet that an interface of the host has.
	n.Run("ip", "-n", "lan", "addr", "add", "198.51.100.1/24", "dev", "lan0")
	n.do("network", "create", "--driver="+driver, "--opt=parent=lan0", "--subnet=198.51.100.0/24", "--gateway=198.51.100.1", "--ip-range=198.51.100.128/25", "street")
	n.serve("web", "--network=street")
	web := n.addr("web", "eth0", "-4")
	n.same("address", "198.51.100.129", web)
	n.Wants("web saw 198.51.100.1", n.LAN().TCP(web+":80"))
	n.remove("web")
	n.do("network", "rm", "street")
	n.left()
}

// Containers without a network of their own.
func TestNoNetworkOfItsOwn(t *testing.T) {
	tried.Row(t, "`--net host`, `--net none`, `--net container:NAME`")
	n := newNerdctl(t)
	n.serve("web", "--publish=8080:80")
	n.do("run", "--detach", "--cgroup-parent="+n.cgroup, "--name=mate", "--net=container:web", bed.ImageTag, "/bin/sleep", "1000")
	n.do("run", "--detach", "--cgroup-parent="+n.cgroup, "--name=host", "--net=host", bed.ImageTag, "/bin/sleep", "1000")
	n.do("run", "--detach", "--cgroup-parent="+n.cgroup, "--name=none", "--net=none", bed.ImageTag, "/bin/sleep", "1000")
	n.asks("mate", "127.0.0.1:80", "web saw 127.0.0.1")
	n.same("mate's address", n.addr("web", "eth0", "-4"), n.addr("mate", "eth0", "-4"))
	n.same("host's address", "192.0.2.1", n.addr("host", "lan0", "-4"))
	if out, err := n.in("none", "/bin/ip", "-o", "link"); err != nil || strings.Contains(out, "eth0") {
		t.Errorf("none has links: %v %s", err, out)
	}
	n.remove("mate", "host", "none")
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.remove("web")
	n.left(bridge)
}
