// Package containerd has the stories of pods that containerd runs, called as
// Kubernetes calls it, and of the containers of ctr.
package containerd

import (
	"fmt"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

// list is the network that containerd's own set-up script writes, and bandwidth.
const list = `{
  "cniVersion": "1.0.0",
  "name": "containerd-net",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "promiscMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}}
  ]
}`

// node is a host where containerd runs.
type node struct {
	*bed.Host
	*bed.Containerd
	t      testing.TB
	cgroup string
}

func newNode(t testing.TB) node {
	t.Helper()
	h := bed.New(t, "containerd", "ctr", "runc", "busybox", "nft", "iptables")
	h.OwnEtc()
	h.Write("/etc/cni/net.d/10-containerd-net.conflist", list)
	tried.Versions(h.Version("containerd", "--version") + ", " + h.Version("runc", "--version"))
	return node{h, h.Containerd(), t, h.Cgroup()}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// podConfig is what kubelet says of a pod.
func (n node) podConfig(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: "uid-" + name, Namespace: "default"},
		Hostname:     name,
		LogDirectory: n.Dir + "/logs",
		Linux:        &cri.LinuxPodSandboxConfig{CgroupParent: n.cgroup},
		Annotations:  map[string]string{},
	}
}

func publish(c *cri.PodSandboxConfig, hostPort int32) {
	c.PortMappings = append(c.PortMappings, &cri.PortMapping{Protocol: cri.Protocol_TCP, ContainerPort: 80, HostPort: hostPort})
}

// run runs a pod and asks what containerd says of it.
func (n node) run(c *cri.PodSandboxConfig) (bed.Sandbox, error) {
	r, err := n.Pods.RunPodSandbox(n.t.Context(), &cri.RunPodSandboxRequest{Config: c})
	if err != nil {
		return bed.Sandbox{}, err
	}
	return n.Sandbox(r.PodSandboxId)
}

// runs is run that must succeed.
func (n node) runs(c *cri.PodSandboxConfig) bed.Sandbox {
	n.t.Helper()
	p, err := n.run(c)
	must(n.t, err)
	return p
}

// remove stops and removes a pod as kubelet does, which repeats what succeeded.
func (n node) remove(p bed.Sandbox) error {
	for range 2 {
		if _, err := n.Pods.StopPodSandbox(n.t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.ID}); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
	}
	_, err := n.Pods.RemovePodSandbox(n.t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: p.ID})
	return err
}

func (n node) removes(pods ...bed.Sandbox) {
	n.t.Helper()
	for _, p := range pods {
		must(n.t, n.remove(p))
	}
}

// wants fails the story where a text has not what it must have.
func (n node) wants(text, part string) {
	n.t.Helper()
	if !strings.Contains(text, part) {
		n.t.Errorf("%q is not in: %s", part, text)
	}
}

// pod asks from within a pod.
func (n node) pod(p bed.Sandbox) bed.Asker { return n.From("ip", "netns", "exec", p.Netns) }
