// Package containerd has the stories of pods that containerd runs, called as
// Kubernetes calls it, and of the containers of ctr.
package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// image is a pod's only container, which serves on port 80. It stands for the
// pause image, too: no registry is asked.
const image = "docker.io/netcleat/peer:1"

const config = `
version = 2
root = "%[1]s/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "%[1]s/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[2]s"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[1]s/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
`

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
	t      *testing.T
	pods   cri.RuntimeServiceClient
	cgroup string
}

func newNode(t *testing.T) node {
	t.Helper()
	h := bed.New(t, "containerd", "ctr", "runc", "busybox", "nft", "iptables")
	h.OwnEtc()
	h.Write(h.Dir+"/config.toml", fmt.Sprintf(config, h.Dir, image))
	h.Write("/etc/cni/net.d/10-containerd-net.conflist", list)
	conn, err := grpc.NewClient("unix:"+h.Dir+"/containerd.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	n := node{h, t, cri.NewRuntimeServiceClient(conn), h.Cgroup()}
	n.start()
	n.ctr("--namespace=k8s.io", "images", "import", h.Image(image))
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start starts containerd and waits until it is ready for pods.
func (n node) start() {
	n.t.Helper()
	n.Sh(`cd ` + n.Dir + ` && { containerd --config config.toml --log-level warn >>log 2>&1 & echo $! >pid; }`)
	n.t.Cleanup(func() {
		if log, err := os.ReadFile(n.Dir + "/log"); n.t.Failed() {
			n.t.Logf("containerd: %s %v", log, err)
		}
	})
	n.Wait("containerd is ready", func() bool {
		ctx, cancel := context.WithTimeout(n.t.Context(), time.Second)
		defer cancel()
		s, err := n.pods.Status(ctx, &cri.StatusRequest{})
		if err != nil {
			return false
		}
		for _, c := range s.Status.Conditions {
			if !c.Status {
				return false
			}
		}
		return true
	})
}

// stop ends containerd, not its containers.
func (n node) stop() {
	n.t.Helper()
	n.Sh(`cd ` + n.Dir + ` && kill $(cat pid)`)
	n.Wait("containerd has ended", func() bool {
		_, err := n.Try("sh", "-c", "kill -0 $(cat pid)")
		return err != nil
	})
}

func (n node) ctr(args ...string) string {
	n.t.Helper()
	return n.Run(append([]string{"ctr", "--address=" + n.Dir + "/containerd.sock"}, args...)...)
}

// pod is one that runs.
type pod struct {
	id     string
	v4, v6 string
	pid    string // of the process that holds its namespaces
	netns  string
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
func (n node) run(c *cri.PodSandboxConfig) (pod, error) {
	r, err := n.pods.RunPodSandbox(n.t.Context(), &cri.RunPodSandboxRequest{Config: c})
	if err != nil {
		return pod{}, err
	}
	p := pod{id: r.PodSandboxId}
	s, err := n.pods.PodSandboxStatus(n.t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
	if err != nil {
		return p, err
	}
	p.v4 = s.Status.Network.Ip
	for _, ip := range s.Status.Network.AdditionalIps {
		p.v6 = ip.Ip
	}
	var info struct {
		Pid         int
		RuntimeSpec struct {
			Linux struct {
				Namespaces []struct{ Type, Path string }
			}
		}
	}
	if err := json.Unmarshal([]byte(s.Info["info"]), &info); err != nil {
		return p, err
	}
	p.pid = fmt.Sprint(info.Pid)
	for _, ns := range info.RuntimeSpec.Linux.Namespaces {
		if ns.Type == "network" {
			p.netns = filepath.Base(ns.Path)
		}
	}
	return p, nil
}

// runs is run that must succeed.
func (n node) runs(c *cri.PodSandboxConfig) pod {
	n.t.Helper()
	p, err := n.run(c)
	must(n.t, err)
	return p
}

// remove stops and removes a pod as kubelet does, which repeats what succeeded.
func (n node) remove(p pod) error {
	for range 2 {
		if _, err := n.pods.StopPodSandbox(n.t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
	}
	_, err := n.pods.RemovePodSandbox(n.t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	return err
}

func (n node) removes(pods ...pod) {
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
func (n node) pod(p pod) bed.Asker { return n.From("ip", "netns", "exec", p.netns) }
