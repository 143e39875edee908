package podman

import (
	"fmt"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

// Ports of the host that podman chooses itself: each container has another.
func TestRandomPorts(t *testing.T) {
	tried.Row(t, "`--publish=80` three times: podman chooses the ports")
	p := newPodman(t)
	var all []string
	for _, name := range []string{"a", "b", "c"} {
		p.serve(name, "--publish=80")
		_, port, _ := strings.Cut(p.do("port", name, "80"), ":")
		p.Wants(name+" saw 192.0.2.2", p.LAN().TCP("192.0.2.1:"+port))
		all = append(all, port)
	}
	if all[0] == all[1] || all[1] == all[2] || all[0] == all[2] {
		t.Errorf("ports: %q", all)
	}
	p.remove("a", "b", "c")
	p.Left("cni-podman0")
}

// A published port of SCTP has its rules, and loses them: the kernel need not have
// the protocol.
func TestSCTP(t *testing.T) {
	tried.Row(t, "a published port of SCTP (rules only)")
	p := newPodman(t)
	p.serve("web", "--publish=8132:80/sctp")
	if rules := p.Run("nft", "list", "ruleset"); !strings.Contains(rules, "sctp") || !strings.Contains(rules, "8132") {
		t.Errorf("no rule for sctp: %s", rules)
	}
	p.remove("web")
	p.Left("cni-podman0")
}

// A container whose process dies is started again by its restart policy, with its
// port.
func TestRestartPolicy(t *testing.T) {
	tried.Row(t, "`--restart=always`: the process is killed")
	p := newPodman(t)
	p.serve("web", "--restart=always", "--publish=8080:80")
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	pid := p.do("inspect", "--format={{.State.Pid}}", "web")
	p.Run("kill", "-9", pid)
	p.Wait("another process", func() bool {
		out, err := p.try("inspect", "--format={{.State.Running}} {{.State.Pid}}", "web")
		return err == nil && strings.HasPrefix(out, "true") && strings.TrimSpace(out) != "true "+pid
	})
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.remove("web")
	p.Left("cni-podman0")
}

// The host boots: a container can be started at once, with its port. Its lease,
// which outlives the boot, does not hinder it.
func TestReboot(t *testing.T) {
	tried.Row(t, "a reboot, then `start`: at once with the port (with the reference the first `start` after a boot says \"duplicate allocation\" where the leases are not wiped)")
	p := newPodman(t)
	p.serve("web", "--publish=8080:80")
	p.serve("other")
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.Reboot("cni-podman0")
	p.Sh("rm -rf tmp run") // as /tmp and /run are emptied
	p.Healthy()
	p.do("start", "web", "other")
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.Healthy("--deep")
	p.asks("other", p.network("web", "podman").IPAddress+":80", "web saw "+p.network("other", "podman").IPAddress)
	p.remove("web", "other")
	p.Left("cni-podman0")
}

// play is a pod as Kubernetes has them. The container that holds its namespaces
// serves.
const play = `
apiVersion: v1
kind: Pod
metadata: {name: shop}
spec:
  containers:
  - name: idle
    image: ` + bed.ImageTag + `
    command: [/bin/sleep, "1000"]
    imagePullPolicy: Never
    ports: [{containerPort: 80, hostPort: 8080}]
`

// A pod of a Kubernetes manifest: play, generate, down.
func TestPlayKube(t *testing.T) {
	tried.Row(t, "`play kube`, `generate kube`, `play kube --down`")
	p := newPodman(t)
	p.do("load", "--input", p.Image(bed.ImageTag))
	p.Write(p.Dir+"/play.yaml", play)
	p.do("play", "kube", p.Dir+"/play.yaml")
	p.Wants("shop saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.do("generate", "kube", "--filename="+p.Dir+"/again.yaml", "shop")
	p.do("play", "kube", "--down", p.Dir+"/play.yaml")
	p.LAN().Refuses("tcp", "192.0.2.1:8080")
	p.do("play", "kube", p.Dir+"/again.yaml")
	p.Wants("shop saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.do("pod", "rm", "--force", "--time=0", "shop")
	p.Left("cni-podman0", "cni-podman1")
}

// A pod: its containers have one network and one host port. The one that holds the
// namespaces serves.
func TestPod(t *testing.T) {
	tried.Row(t, "a pod with a published port; `pod restart`")
	p := newPodman(t)
	p.do("load", "--input", p.Image(bed.ImageTag))
	p.do("pod", "create", "--name=shop", "--publish=8080:80")
	p.do("run", "--detach", "--pod=shop", "--name=idle", bed.ImageTag, "/bin/sleep", "1000")
	p.Wants("shop saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.asks("idle", "127.0.0.1:80", "shop saw 127.0.0.1")
	p.do("pod", "restart", "shop")
	p.Wants("shop saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.do("pod", "rm", "--force", "--time=0", "shop")
	p.Left("cni-podman0")
}

// Three networks at once, and a fixed address in one.
func TestThreeNetworks(t *testing.T) {
	tried.Row(t, "three networks at once, a fixed address in one")
	p := newPodman(t)
	for i, n := range []string{"red", "green", "blue"} {
		p.do("network", "create", fmt.Sprintf("--subnet=10.7%d.0.0/24", i), n)
	}
	p.serve("web", "--network=red:ip=10.70.0.9", "--network=green", "--network=blue", "--publish=8080:80")
	p.same("fixed address", "10.70.0.9", p.network("web", "red").IPAddress)
	for i, n := range []string{"red", "green", "blue"} {
		p.Wants(fmt.Sprintf("web saw 10.7%d.0.1", i), p.From().TCP(p.network("web", n).IPAddress+":80"))
	}
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.remove("web")
	p.do("network", "rm", "red", "green", "blue")
	p.Left()
}
