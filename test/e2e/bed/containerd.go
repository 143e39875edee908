package bed

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ImageTag names the only image. It stands for the pause image, too: no registry is
// asked.
const ImageTag = "docker.io/netcleat/peer:1"

const containerdConfig = `
version = 2
root = "%[1]s/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "%[1]s/containerd.sock"
[metrics]
  address = "127.0.0.1:1338"
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

// Containerd is the daemon on a host.
type Containerd struct {
	Pods cri.RuntimeServiceClient
	h    *Host
}

// Containerd starts the daemon, which must find its networks in /etc/cni/net.d, and
// gives it the image for pods.
func (h *Host) Containerd() *Containerd {
	h.t.Helper()
	h.Write(h.Dir+"/config.toml", fmt.Sprintf(containerdConfig, h.Dir, ImageTag))
	conn, err := grpc.NewClient("unix:"+h.Dir+"/containerd.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	h.must(err)
	h.t.Cleanup(func() { _ = conn.Close() })
	c := &Containerd{cri.NewRuntimeServiceClient(conn), h}
	h.t.Cleanup(func() {
		if log, err := os.ReadFile(h.Dir + "/log"); h.t.Failed() {
			h.t.Logf("containerd: %s %v", log, err)
		}
	})
	c.Start()
	c.Ctr("--namespace=k8s.io", "images", "import", h.Image(ImageTag))
	return c
}

// Start starts the daemon and waits until it is ready for pods.
func (c *Containerd) Start() {
	c.h.t.Helper()
	c.h.Sh(`cd ` + c.h.Dir + ` && { containerd --config config.toml --log-level warn >>log 2>&1 & echo $! >pid; }`)
	c.h.Wait("containerd is ready", func() bool {
		ctx, cancel := context.WithTimeout(c.h.ctx, time.Second)
		defer cancel()
		s, err := c.Pods.Status(ctx, &cri.StatusRequest{})
		if err != nil {
			return false
		}
		for _, condition := range s.Status.Conditions {
			if !condition.Status {
				return false
			}
		}
		return true
	})
}

// Stop ends the daemon, not its containers.
func (c *Containerd) Stop() {
	c.h.t.Helper()
	c.end("TERM")
}

// Kill has the daemon no time to end what it does.
func (c *Containerd) Kill() {
	c.h.t.Helper()
	c.end("KILL")
}

func (c *Containerd) end(signal string) {
	c.h.t.Helper()
	c.h.Sh(`cd ` + c.h.Dir + ` && kill -` + signal + ` $(cat pid)`)
	c.h.Wait("containerd has ended", func() bool {
		_, err := c.h.Try("sh", "-c", "kill -0 $(cat pid)")
		return err != nil
	})
}

// Ctr runs containerd's own client.
func (c *Containerd) Ctr(args ...string) string {
	c.h.t.Helper()
	return c.h.Run(append([]string{"ctr", "--address=" + c.h.Dir + "/containerd.sock"}, args...)...)
}

// Sandbox is a pod that runs.
type Sandbox struct {
	ID, Name string
	V4, V6   string
	PID      string // of the process that holds its namespaces
	Netns    string // its name in /run/netns
}

// Sandbox returns what the daemon says of a pod.
func (c *Containerd) Sandbox(id string) (Sandbox, error) {
	s, err := c.Pods.PodSandboxStatus(c.h.ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return Sandbox{ID: id}, err
	}
	p := Sandbox{ID: id, Name: s.Status.Metadata.Name, V4: s.Status.Network.GetIp()}
	for _, ip := range s.Status.Network.GetAdditionalIps() {
		p.V6 = ip.Ip
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
	p.PID = strconv.Itoa(info.Pid)
	for _, ns := range info.RuntimeSpec.Linux.Namespaces {
		if ns.Type == "network" {
			_, p.Netns = cutLast(ns.Path)
		}
	}
	return p, nil
}

// Sandboxes are the IDs of the pods that run, by the name of the pod.
func (c *Containerd) Sandboxes() (map[string][]string, error) {
	all := map[string][]string{}
	l, err := c.Pods.ListPodSandbox(c.h.ctx, &cri.ListPodSandboxRequest{})
	for _, s := range l.GetItems() {
		if s.State != cri.PodSandboxState_SANDBOX_READY {
			continue
		}
		all[s.Metadata.Name] = append(all[s.Metadata.Name], s.Id)
	}
	return all, err
}

// PluginTime is how long the daemon has waited for the plugins to attach pods.
func (c *Containerd) PluginTime() time.Duration {
	c.h.t.Helper()
	m := pluginTime.FindStringSubmatch(c.h.Run("curl", "-fsS", "http://127.0.0.1:1338/v1/metrics"))
	if m == nil {
		return 0 // none yet
	}
	seconds, err := strconv.ParseFloat(m[1], 64)
	c.h.must(err)
	return time.Duration(seconds * float64(time.Second))
}

var pluginTime = regexp.MustCompile(`(?m)^containerd_cri_network_plugin_operations_duration_seconds_(?:seconds_)?sum\{[^}]*set_?up[^}]*\} (\S+)$`)
