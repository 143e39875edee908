// Package kubelet has the stories of a node: a kubelet without an API server, its
// static pods, and containerd. They take a built kubelet: make test-kube.
package kubelet

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

const config = `
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: %[1]s/manifests
fileCheckFrequency: 1s
syncFrequency: 10s
containerRuntimeEndpoint: unix://%[1]s/containerd.sock
podLogsDir: %[1]s/pods
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
readOnlyPort: 10255
cgroupDriver: cgroupfs
cgroupRoot: %[2]s
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
resolvConf: ""
maxPods: 200
evictionHard: {memory.available: 1Mi, nodefs.available: 1Mi, imagefs.available: 1Mi}
imageGCHighThresholdPercent: 100
`

// list is the network of docs/runtimes.md: two families, a way for a pod to its own
// host port, host ports and bandwidth.
const list = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
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

// node is a host where kubelet and containerd run.
type node struct {
	*bed.Host
	containerd *bed.Containerd
	t          testing.TB
}

// newNode starts a node, whose kubelet has no pod.
func newNode(t testing.TB) node {
	t.Helper()
	kubelet := program(t)
	h := bed.New(t, "containerd", "ctr", "runc", "busybox", "nft", "iptables", "mount")
	h.OwnEtc()
	h.Write("/etc/cni/net.d/10-pods.conflist", list)
	h.Write(h.Dir+"/kubelet.yaml", fmt.Sprintf(config, h.Dir, h.Cgroup()))
	h.Sh("ln -s " + kubelet + " kubelet && mkdir manifests")
	tried.Versions(bed.ModuleVersion(t, kubelet) + ", " + h.Version("containerd", "--version") + ", " + h.Version("runc", "--version"))
	n := node{h, h.Containerd(), t}
	n.containerd.Import()
	n.ownSysctls()
	t.Cleanup(func() {
		if log, err := os.ReadFile(h.Dir + "/kubelet.log"); t.Failed() {
			t.Logf("kubelet: %s %v", tail(log), err)
		}
	})
	t.Cleanup(n.unmount)
	n.start()
	return n
}

// ownSysctls gives the node sysctls of its own where kubelet would set the
// machine's.
func (n node) ownSysctls() {
	n.t.Helper()
	n.Sh(`
		mkdir sysctl
		for s in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
			cat /proc/sys/$s >sysctl/$(basename $s)
			mount --bind sysctl/$(basename $s) /proc/sys/$s
		done`)
}

// program is kubelet, which make test-kube builds.
func program(t testing.TB) string {
	t.Helper()
	if os.Getenv("KUBE") == "" {
		t.Skip("kubelet takes minutes to build: make test-kube")
	}
	return bed.Client(t, "kubelet")
}

// tail is the last of a log.
func tail(log []byte) []byte { return log[max(0, len(log)-20_000):] }

// start starts kubelet and waits until it answers.
func (n node) start() {
	n.t.Helper()
	n.Sh(`{ ./kubelet --config=kubelet.yaml --root-dir=` + n.Dir + `/kubelet.d --cert-dir=` + n.Dir + `/pki --hostname-override=node >>kubelet.log 2>&1 & echo $! >kubelet.pid; }`)
	n.Wait("kubelet answers", func() bool {
		_, err := n.Try("curl", "-fsS", "http://127.0.0.1:10255/pods")
		return err == nil
	})
}

// stop ends kubelet, not its pods.
func (n node) stop() {
	n.t.Helper()
	n.Sh(`kill $(cat kubelet.pid)`)
	n.Wait("kubelet has ended", func() bool {
		_, err := n.Try("sh", "-c", "kill -0 $(cat kubelet.pid)")
		return err != nil
	})
}

// unmount removes the file systems that kubelet mounts for its pods.
func (n node) unmount() {
	_, _ = n.Try("sh", "-c", `grep -o ' `+n.Dir+`/kubelet.d/[^ ]*' /proc/mounts | xargs -r umount`)
}

// manifest is a static pod, the container of which does nothing: the one that holds
// the namespaces serves, as it is of the same image. It publishes hostPort where that is not 0.
func manifest(name string, hostPort int, annotations string) string {
	port := ""
	if hostPort != 0 {
		port = fmt.Sprintf("    ports: [{containerPort: 80, hostPort: %d}]\n", hostPort)
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: %[1]s
  annotations: {%[2]s}
spec:
  terminationGracePeriodSeconds: 0
  hostname: %[1]s
  enableServiceLinks: false
  automountServiceAccountToken: false
  containers:
  - name: peer
    image: %[3]s
    command: [/bin/sleep, "1000000"]
    imagePullPolicy: Never
%[4]s`, name, annotations, bed.ImageTag, port)
}

// write writes a pod's manifest, which kubelet sees whole or not at all.
func (n node) write(name string, hostPort int, annotations string) {
	n.t.Helper()
	path := n.Dir + "/manifests/" + name + ".yaml"
	n.Write(n.Dir+"/new.yaml", manifest(name, hostPort, annotations))
	n.Run("mv", n.Dir+"/new.yaml", path)
}

// delete removes pods' manifests and waits until containerd has detached the pods,
// which it has when it removes their namespaces.
func (n node) delete(names ...string) {
	n.t.Helper()
	var namespaces []string
	for _, name := range names {
		namespaces = append(namespaces, n.Path("/run/netns/"+n.sandbox(name).Netns))
		n.Run("rm", n.Dir+"/manifests/"+name+".yaml")
	}
	n.Wait("the pods have ended", func() bool {
		for _, path := range namespaces {
			if _, err := os.Stat(path); err == nil {
				return false
			}
		}
		return true
	})
}

// pod is what kubelet says of a pod that runs.
type pod struct {
	v4, v6 string
}

// pods returns the pods that run and have both addresses, by the name in their
// manifest.
func (n node) pods() map[string]pod {
	n.t.Helper()
	out, err := n.Try("curl", "-fsS", "http://127.0.0.1:10255/pods")
	if err != nil {
		return nil // kubelet is restarted
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Phase  string
				PodIPs []struct{ IP string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	all := map[string]pod{}
	for _, p := range list.Items {
		if ips := p.Status.PodIPs; p.Status.Phase == "Running" && len(ips) == 2 {
			all[trim(p.Metadata.Name)] = pod{ips[0].IP, ips[1].IP}
		}
	}
	return all
}

// running waits until pods run, and kubelet knows the addresses that they have now,
// and returns them.
func (n node) running(names ...string) map[string]pod {
	n.t.Helper()
	var all map[string]pod
	n.Wait(fmt.Sprintf("%d pods run", len(names)), func() bool {
		all = n.pods()
		for _, name := range names {
			if all[name] == (pod{}) {
				return false // containerd is not asked while kubelet waits
			}
		}
		sandboxes := n.sandboxes()
		for _, name := range names {
			ids := sandboxes[name]
			if len(ids) != 1 {
				return false
			}
			s, err := n.containerd.Sandbox(ids[0])
			if err != nil || all[name] != (pod{s.V4, s.V6}) {
				return false
			}
		}
		return true
	})
	return all
}

// trim takes the node's name, which kubelet appends, off a static pod's.
func trim(name string) string { return strings.TrimSuffix(name, "-node") }
