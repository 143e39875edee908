package kubelet

import (
	"fmt"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

// count is the number of pods in a burst.
const count = 30

// burst writes the manifests of all pods at once, each with a port of the host and
// limits of bandwidth, and returns their names.
func (n node) burst() []string {
	n.t.Helper()
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("pod%d", i))
		n.write(names[i], 10000+i, `kubernetes.io/ingress-bandwidth: "8M", kubernetes.io/egress-bandwidth: "16M"`)
	}
	return names
}

// in asks from within a pod.
func (n node) in(name string) bed.Asker {
	n.t.Helper()
	return n.From("ip", "netns", "exec", n.sandbox(name).Netns)
}

// sandbox returns the only sandbox of a pod.
func (n node) sandbox(name string) bed.Sandbox {
	n.t.Helper()
	ids := n.sandboxes()[name]
	if len(ids) != 1 {
		n.t.Fatalf("pod %s has the sandboxes %q", name, ids)
	}
	s, err := n.containerd.Sandbox(ids[0])
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// sandboxes are those that run, by the name in their pod's manifest.
func (n node) sandboxes() map[string][]string {
	n.t.Helper()
	all, err := n.containerd.Sandboxes()
	if err != nil {
		n.t.Fatal(err)
	}
	for name, ids := range all {
		delete(all, name)
		all[trim(name)] = ids
	}
	return all
}

// reachable has a pod answer at its host port and its addresses: to the LAN, to the
// host, to another pod and to itself.
func (n node) reachable(name string, port int, p pod, other string, from pod) {
	n.t.Helper()
	v4, v6 := fmt.Sprintf("192.0.2.1:%d", port), fmt.Sprintf("[2001:db8::1]:%d", port)
	n.Wants(name+" saw 192.0.2.2", n.LAN().TCP(v4))
	n.Wants(name+" saw 2001:db8::2", n.LAN().TCP(v6))
	n.Wants(name+" saw 10.88.0.1", n.From().TCP(p.v4+":80"))
	n.Wants(name+" saw fd00:88::1", n.From().TCP("["+p.v6+"]:80"))
	n.Wants(name+" saw "+from.v4, n.in(other).TCP(p.v4+":80"))
	n.Wants(name+" saw "+from.v6, n.in(other).TCP("["+p.v6+"]:80"))
	n.Wants(name+" saw 10.88.0.1", n.in(other).TCP(v4)) // masqueraded, as by the reference
	n.Wants(name+" saw fd00:88::1", n.in(other).TCP(v6))
	n.Wants(name+" saw 10.88.0.1", n.in(name).TCP(v4))
}

// Thirty pods with host ports and limits of bandwidth, on both families: all are
// reachable by all ways; kubelet and containerd are restarted in the middle of the
// burst; when the manifests are removed nothing is left.
func TestThirtyPods(t *testing.T) {
	tried.Row(t, "a burst of 30 static pods with host ports and bandwidth annotations on both families; kubelet and containerd are killed and restarted in the middle; manifests removed")
	n := newNode(t)
	names := n.burst()
	n.Wait("the burst has begun", func() bool { return len(n.sandboxes()) > 2 })
	n.stop()
	n.containerd.Kill()
	n.containerd.Start()
	n.start()
	pods := n.running(names...)
	owner := map[string]string{}
	for name, p := range pods {
		for _, addr := range []string{p.v4, p.v6} {
			if other, taken := owner[addr]; taken {
				t.Errorf("pods %s and %s: address %s", other, name, addr)
			}
			owner[addr] = name
		}
	}
	for i := 0; i < count; i += 9 {
		n.reachable(names[i], 10000+i, pods[names[i]], names[1], pods[names[1]])
	}
	n.limited(count)
	n.delete(names...)
	n.forgotten()
	n.Left("cni0")
}

// forgotten removes what containerd has forgotten of the pods that it was making
// when it was killed: it leaves their namespaces, with either suite of plugins, and
// the operator's command finds what was attached to them.
func (n node) forgotten() {
	n.t.Helper()
	n.Sh(`
		for file in /run/netns/cni-*; do
			[ -e $file ] || continue
			umount $file 2>/dev/null || true # killed before it had mounted the namespace there
			rm -f $file
		done`)
	n.Run(n.Netcleat(), "gc")
}

// limited wants qdiscs that limit pods in both directions.
func (n node) limited(pods int) {
	n.t.Helper()
	for _, rate := range []string{"8Mbit", "16Mbit"} {
		n.Wants(fmt.Sprintln(pods), n.Sh("tc qdisc | grep -c 'tbf.*rate "+rate+"'"))
	}
}

// Connections go on while kubelet and containerd are restarted; a pod that comes
// later has other addresses.
func TestRestart(t *testing.T) {
	tried.Row(t, "restart of kubelet and containerd under a connection")
	n := newNode(t)
	n.write("web", 8080, "")
	web := n.running("web")["web"]
	talk := n.From().Talk(web.v4 + ":7")
	n.stop()
	n.containerd.Stop()
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.containerd.Start()
	n.start()
	n.write("late", 8081, "")
	pods := n.running("web", "late")
	if pods["web"] != web {
		t.Errorf("web had %v, has %v", web, pods["web"])
	}
	n.reachable("web", 8080, web, "late", pods["late"])
	talk.End()
	n.delete("web", "late")
	n.Left("cni0")
}

// Somebody kills the process that holds a pod's namespaces. kubelet makes another
// pod, which has the host port.
func TestKilledPause(t *testing.T) {
	tried.Row(t, "the process that holds a pod's namespaces is killed")
	n := newNode(t)
	n.write("web", 8080, "")
	n.write("other", 0, "")
	n.running("web", "other")
	first := n.sandbox("web")
	n.Run("kill", "-9", first.PID)
	n.Wait("another sandbox", func() bool {
		ids := n.sandboxes()["web"]
		return len(ids) == 1 && ids[0] != first.ID
	})
	pods := n.running("web", "other")
	n.reachable("web", 8080, pods["web"], "other", pods["other"])
	n.delete("web", "other")
	n.Left("cni0")
}

// Somebody flushes the rules: the operator's command restores them for all pods.
func TestReconcile(t *testing.T) {
	tried.Row(t, "flushed rules, `netcleat reconcile`")
	n := newNode(t)
	n.write("web", 8080, "")
	n.write("other", 8081, "")
	pods := n.running("web", "other")
	n.Run("nft", "flush", "ruleset")
	n.LAN().Refuses("tcp", "192.0.2.1:8080")
	n.Run(n.Netcleat(), "reconcile")
	n.reachable("web", 8080, pods["web"], "other", pods["other"])
	n.delete("web", "other")
	n.Left("cni0")
}

// The node boots: the pods are made again from their manifests.
func TestReboot(t *testing.T) {
	tried.Row(t, "a reboot")
	n := newNode(t)
	n.write("web", 8080, "")
	n.write("other", 8081, "")
	n.running("web", "other")
	n.unmount()
	n.Reboot("cni0")
	n.containerd.Start()
	n.start()
	pods := n.running("web", "other")
	n.reachable("web", 8080, pods["web"], "other", pods["other"])
	n.Healthy("--deep")
	n.delete("web", "other")
	n.Left("cni0")
}
