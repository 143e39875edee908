package nerdctl

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/tried"
)

// foreign is a network of another runtime on the same host.
const foreign = `{
  "cniVersion": "1.0.0", "name": "pods",
  "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
     "ipam": {"type": "host-local", "subnet": "10.88.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}`

// Ports that nerdctl chooses: it must see those of its own containers, and of
// those of other runtimes, also of one that was there first.
func TestRandomPorts(t *testing.T) {
	tried.Row(t, "several containers with `-p 80`, a random port each, next to explicit ports and to a port of another runtime")
	n := newNerdctl(t)
	l := n.List(foreign)
	pod := n.Container("pod")
	pod.CapabilityArgs["portMappings"] = []map[string]any{{"hostPort": 49154, "containerPort": 80, "protocol": "tcp"}}
	n.serve("explicit", "--publish=49155:80")
	n.Add(l, pod)
	ports := map[string]string{"49154": "pod", "49155": "explicit"}
	for _, name := range []string{"first", "second", "third"} {
		n.serve(name, "--publish=80")
		port := n.port(name)
		if other := ports[port]; other != "" {
			t.Errorf("%s and %s have port %s", other, name, port)
		}
		ports[port] = name
		n.Wants(name+" saw 192.0.2.2", n.LAN().TCP("192.0.2.1:"+port))
	}
	n.remove("second")
	n.serve("fourth", "--publish=80")
	n.Wants("fourth saw 192.0.2.2", n.LAN().TCP("192.0.2.1:"+n.port("fourth")))
	n.remove("first", "third", "fourth", "explicit")
	n.Del(l, pod)
	n.RemoveContainers("pod")
	if out, err := n.Try("iptables", "-t", "nat", "-S", "CNI-HOSTPORT-DNAT"); err == nil {
		t.Errorf("the chain that nerdctl reads is left: %s", out)
	}
	n.left(bridge, "cni0")
}

// A port of another runtime's container that was there before nerdctl was: the
// first try meets it, and the next one knows.
func TestRandomPortBehindOthers(t *testing.T) {
	tried.Row(t, "`-p 80` where a container from before nerdctl's first has the port that it chooses: the first run fails, the next ones know")
	n := newNerdctl(t)
	n.Sh("rm -rf /var/lib/nerdctl")
	l := n.List(foreign)
	pod := n.Container("pod")
	pod.CapabilityArgs["portMappings"] = []map[string]any{{"hostPort": 49153, "containerPort": 80, "protocol": "tcp"}}
	n.Add(l, pod)
	if out, err := n.try(n.run("first", "--publish=80")...); err == nil || !strings.Contains(out, "49153/tcp: already published by container") {
		t.Errorf("first run: %v %s", err, out)
	}
	n.serve("second", "--publish=80")
	n.same("port", "49154", n.port("second"))
	n.remove("first", "second")
	n.Del(l, pod)
	n.RemoveContainers("pod")
	n.left(bridge, "cni0")
}

// Ports that the user chooses, and one that is taken.
func TestExplicitPorts(t *testing.T) {
	tried.Row(t, "`-p 8080:80`, `-p 8053:80/udp`, `-p 9000-9002:80-82`, `-p 192.0.2.1:8081:80`")
	tried.Row(t, "the same port twice: the second container is refused and stays in state Created (nerdctl 1.7 does not look; nerdctl 2 refuses it before it makes one)")
	n := newNerdctl(t)
	n.serve("web", "--publish=8080:80", "--publish=8053:80/udp", "--publish=9000-9002:80-82", "--publish=192.0.2.1:8081:80")
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.Wants("web saw 192.0.2.2", n.LAN().UDP("192.0.2.1:8053"))
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:9000"))
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:9002"))
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8081"))
	n.From().Refuses("tcp", "127.0.0.1:8081")
	out := n.Run("iptables", "-t", "nat", "-S", "CNI-HOSTPORT-DNAT")
	for _, ports := range []string{"-p tcp", "--dports 8080,8081,9000,9001,9002", "-p udp", "--dports 8053"} {
		if !strings.Contains(out, ports) {
			t.Errorf("what nerdctl reads has no %s: %s", ports, out)
		}
	}
	out, err := n.try(n.run("second", "--publish=8080:80")...)
	if err == nil || !strings.Contains(out, "8080/tcp: already published by container") {
		t.Errorf("the port twice: %v %s", err, out)
	}
	n.same("second", "Created", n.status()["second"])
	n.Healthy("--deep") // with a container that was refused
	n.remove("second")
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.remove("web")
	n.LAN().Refuses("tcp", "192.0.2.1:8080")
	n.serve("heir", "--publish=8080:80")
	n.Wants("heir saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.remove("heir")
	n.left(bridge)
}
