package bed

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

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

// Containerd is the daemon of that name on a host.
type Containerd struct{ *Daemon }

// Containerd starts the daemon. Its networks for pods are in /etc/cni/net.d.
func (h *Host) Containerd() *Containerd {
	h.t.Helper()
	h.Write(h.Dir+"/config.toml", fmt.Sprintf(containerdConfig, h.Dir, ImageTag))
	c := &Containerd{h.daemon("containerd", "containerd --config config.toml --log-level warn")}
	c.Start()
	return c
}

// Import gives the daemon the image for pods.
func (c *Containerd) Import() {
	c.h.t.Helper()
	c.Ctr("--namespace=k8s.io", "images", "import", c.h.Image(ImageTag))
}

// Ctr runs containerd's own client.
func (c *Containerd) Ctr(args ...string) string {
	c.h.t.Helper()
	return c.h.Run(append([]string{"ctr", "--address=" + c.h.Dir + "/containerd.sock"}, args...)...)
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
