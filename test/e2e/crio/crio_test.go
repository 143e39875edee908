// Package crio has the stories of pods that CRI-O runs, called as Kubernetes calls
// it. They take a built CRI-O: make test-kube.
package crio

import (
	"os"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

func TestMain(m *testing.M) { os.Exit(tried.Main(m, "CRI-O")) }

// list is a network of two families with bandwidth. CRI-O knows CNI 1.1: it checks
// its attachments and collects garbage. It publishes ports of the host itself.
const list = `{
  "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.85.0.0/16"}], [{"subnet": "fd00:85::/64"}]]}
    },
    {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    {"type": "firewall"}
  ]
}`

// node is a host where CRI-O runs.
type node struct {
	*bed.Host
	*bed.Crio
}

func newNode(t testing.TB) node {
	t.Helper()
	if os.Getenv("KUBE") == "" {
		t.Skip("CRI-O takes minutes to build: make test-kube")
	}
	program := bed.Client(t, "crio")
	h := bed.New(t, "podman", "conmon", "runc", "busybox", "nft", "iptables")
	h.OwnEtc()
	h.Write("/etc/cni/net.d/10-pods.conflist", list)
	tried.Versions(bed.ModuleVersion(t, program) + ", " + h.Version("conmon", "--version") + ", " + h.Version("runc", "--version"))
	return node{h, h.Crio(program)}
}

// web runs a pod with host port 8080 and limits of bandwidth.
func (n node) web() bed.Sandbox {
	c := n.PodConfig("web")
	bed.Publish(c, 8080)
	c.Annotations["kubernetes.io/ingress-bandwidth"] = "8M"
	c.Annotations["kubernetes.io/egress-bandwidth"] = "16M"
	return n.RunPod(c)
}

// reachable has the pod web answer at its host port and its addresses.
func (n node) reachable(web, other bed.Sandbox) {
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.Wants("web saw 2001:db8::2", n.LAN().TCP("[2001:db8::1]:8080"))
	n.Wants("web saw "+other.V4, other.From(n.Host).TCP(web.V4+":80"))
	n.Wants("web saw "+other.V6, other.From(n.Host).TCP("["+web.V6+"]:80"))
}

// left fails the story where the host has what it had not at its beginning. CRI-O
// leaves its own tables.
func (n node) left() {
	n.Sh("nft delete table ip crio-hostports; nft delete table ip6 crio-hostports")
	n.Left("cni0")
}

// Pods on both families, with limits of bandwidth and a port of the host, which is
// CRI-O's own.
func TestPods(t *testing.T) {
	tried.Row(t, "pods on both families, with bandwidth annotations; host ports, which CRI-O publishes itself")
	n := newNode(t)
	web, other := n.web(), n.RunPod(n.PodConfig("other"))
	n.reachable(web, other)
	qdiscs := n.Run("tc", "qdisc")
	for _, rate := range []string{"rate 8Mbit", "rate 16Mbit"} {
		if !strings.Contains(qdiscs, rate) {
			t.Errorf("no %s: %s", rate, qdiscs)
		}
	}
	n.RemovePods(web)
	again := n.web()
	n.reachable(again, other)
	n.Healthy("--deep")
	n.RemovePods(again, other)
	n.left()
}

// CRI-O is restarted, at last by kill -9: pods go on. At its start it collects what
// is attached to its networks and is none of its pods.
func TestRestart(t *testing.T) {
	tried.Row(t, "restart and kill of CRI-O under a connection; GC at its start removes what is of no pod")
	n := newNode(t)
	web, other := n.web(), n.RunPod(n.PodConfig("other"))
	talk := n.From().Talk(web.V4 + ":7")
	n.Stop()
	n.Start()
	n.reachable(web, other)
	l := n.List(list)
	stale := n.Container("stale")
	n.Add(l, stale)
	n.Sh("rm /var/lib/cni/results/*stale*")
	n.Kill()
	n.Start()
	if out, err := n.Try("ip", "-n", "stale", "link", "show", "eth0"); err == nil {
		t.Errorf("the attachment of no pod is left: %s", out)
	}
	n.reachable(web, other)
	talk.End()
	n.RemoveContainers("stale")
	n.RemovePods(web, other)
	n.left()
}

// A pod's process is killed, and another's namespace deleted.
func TestDeletedNamespace(t *testing.T) {
	tried.Row(t, "a pod whose process is killed; one whose namespace is deleted")
	n := newNode(t)
	web, other := n.web(), n.RunPod(n.PodConfig("other"))
	n.reachable(web, other)
	n.Run("kill", "-9", web.PID)
	n.Run("ip", "netns", "del", other.Netns)
	n.RemovePods(web, other)
	n.left()
}

// The node boots: CRI-O detaches the pods of before, and a new one has the port.
func TestReboot(t *testing.T) {
	tried.Row(t, "a reboot")
	n := newNode(t)
	old, other := n.web(), n.RunPod(n.PodConfig("other"))
	n.reachable(old, other)
	n.Reboot("cni0")
	n.Start()
	n.RemovePods(old, other)
	web, late := n.web(), n.RunPod(n.PodConfig("late"))
	n.reachable(web, late)
	n.Healthy("--deep")
	n.RemovePods(web, late)
	n.left()
}
