package kubelet

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

// daemonPod is the pod of deploy/kubernetes, as a static pod: JSON, which is also YAML.
func daemonPod(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../deploy/kubernetes/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Spec struct {
			Template struct {
				Metadata map[string]any `yaml:"metadata"`
				Spec     map[string]any `yaml:"spec"`
			} `yaml:"template"`
		} `yaml:"spec"`
	}
	if err := yaml.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template
	pod.Metadata["name"] = "netcleat"
	out, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": pod.Metadata, "spec": pod.Spec})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// The DaemonSet's pod on a node that has the reference's plugins: it installs ours
// and becomes ready, a pod that comes after it is attached by ours, and when
// another suite's file is put over ours it becomes unready.
func TestDaemonSetPod(t *testing.T) {
	tried.Row(t, "the pod of deploy/kubernetes as a static pod: it installs the plugins over the reference's")
	n := newNode(t)
	n.Sh("rm /opt/cni/bin/* && cp " + n.Reference() + "/* /opt/cni/bin/")
	image := filepath.Join("../../../build/package", "netcleat-image-v"+plugin.Version+".tar")
	if _, err := os.Stat(image); err != nil {
		t.Fatalf("%v: make package", err)
	}
	abs, err := filepath.Abs(image)
	if err != nil {
		t.Fatal(err)
	}
	n.containerd.Ctr("--namespace=k8s.io", "images", "import", abs)
	n.Write(n.Dir+"/new.yaml", daemonPod(t))
	n.Run("mv", n.Dir+"/new.yaml", n.Dir+"/manifests/netcleat.yaml")
	about := func() string { return n.Sh("/opt/cni/bin/bridge 2>&1 | head -n 1 || true") }
	n.Wait("the plugins are ours", func() bool { return about() == "CNI bridge plugin v"+plugin.Version+"\n" })
	n.Wait("the pod is ready", func() bool { return n.ready("netcleat") })

	n.write("web", 8080, "")
	n.running("web")
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	if records := n.Sh("ls /run/netcleat/pods"); strings.TrimSpace(records) == "" {
		t.Error("our plugins did not attach the pod")
	}
	n.Run("cp", "--remove-destination", n.Reference()+"/portmap", "/opt/cni/bin/portmap")
	n.Wait("the pod is unready", func() bool { return !n.ready("netcleat") })
	n.InstallOurs()
	n.Wait("the pod is ready again", func() bool { return n.ready("netcleat") })
	n.delete("web")
}

// ready reports whether all containers of a pod are ready.
func (n node) ready(name string) bool {
	n.t.Helper()
	out, err := n.Try("curl", "-fsS", "http://127.0.0.1:10255/pods")
	if err != nil {
		return false
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				ContainerStatuses []struct{ Ready bool }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	for _, p := range list.Items {
		if trim(p.Metadata.Name) != name || len(p.Status.ContainerStatuses) == 0 {
			continue
		}
		for _, c := range p.Status.ContainerStatuses {
			if !c.Ready {
				return false
			}
		}
		return true
	}
	return false
}
