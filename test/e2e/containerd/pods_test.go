package containerd

import (
	"fmt"
	"sync"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

const (
	count  = 50 // pods
	atOnce = 8
)

// each does something to all pods, some at once.
func each(do func(i int)) {
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range count {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	all.Wait()
}

// Fifty pods, eight at a time, with a port of the host each, on both families;
// loopback runs beside each attachment. Everything is there while they run, and
// nothing after.
func TestFiftyPods(t *testing.T) {
	tried.Row(t, "50 pods by CRI, eight at a time, with host ports, on both families")
	n := newNode(t)
	pods := make([]bed.Sandbox, count)
	each(func(i int) {
		c := n.PodConfig(fmt.Sprintf("pod%d", i))
		bed.Publish(c, int32(10000+i))
		p, err := n.TryPod(c)
		if err != nil {
			t.Errorf("pod %d: %v", i, err)
		}
		pods[i] = p
	})
	if t.Failed() {
		t.FailNow()
	}
	owner := map[string]int{}
	for i, p := range pods {
		for _, addr := range []string{p.V4, p.V6} {
			if other, taken := owner[addr]; taken || addr == "" {
				t.Errorf("pods %d and %d: address %q", other, i, addr)
			}
			owner[addr] = i
		}
	}
	for i := 0; i < count; i += 7 {
		name := fmt.Sprintf("pod%d", i)
		n.Wants(name+" saw 192.0.2.2", n.LAN().TCP(fmt.Sprintf("192.0.2.1:%d", 10000+i)))
		n.Wants(name+" saw 2001:db8::2", n.LAN().TCP(fmt.Sprintf("[2001:db8::1]:%d", 10000+i)))
		n.Wants(name+" saw "+pods[1].V4, pods[1].From(n.Host).TCP(pods[i].V4+":80"))
		n.Wants(name+" saw "+pods[1].V6, pods[1].From(n.Host).TCP("["+pods[i].V6+"]:80"))
		n.Wants(name+" saw 127.0.0.1", pods[i].From(n.Host).TCP("127.0.0.1:80"))
	}
	n.Healthy("--deep")
	each(func(i int) {
		if err := n.TryRemove(pods[i]); err != nil {
			t.Errorf("pod %d: %v", i, err)
		}
	})
	n.Left("cni0")
}

// Annotations limit a pod's bandwidth.
func TestBandwidthAnnotations(t *testing.T) {
	tried.Row(t, "bandwidth annotations")
	n := newNode(t)
	c := n.PodConfig("slow")
	c.Annotations["kubernetes.io/ingress-bandwidth"] = "8M"
	c.Annotations["kubernetes.io/egress-bandwidth"] = "16M"
	slow, fast := n.RunPod(c), n.RunPod(n.PodConfig("fast"))
	qdiscs := n.Run("tc", "qdisc")
	n.wants(qdiscs, "rate 8Mbit")
	n.wants(qdiscs, "rate 16Mbit")
	n.Wants("slow saw "+fast.V4, fast.From(n.Host).TCP(slow.V4+":80"))
	n.RemovePods(slow, fast)
	n.Left("cni0")
}

// A port that a pod has is refused to the next one, of which nothing is left; it
// gets the port when the first is gone.
func TestPortConflict(t *testing.T) {
	tried.Row(t, "a host port that another pod has is refused")
	n := newNode(t)
	c := n.PodConfig("first")
	bed.Publish(c, 8080)
	first := n.RunPod(c)
	second := n.PodConfig("second")
	bed.Publish(second, 8080)
	if p, err := n.TryPod(second); err == nil {
		t.Errorf("%v has the port, too", p)
	}
	n.Wants("first saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.RemovePods(first)
	heir := n.RunPod(second)
	n.Wants("second saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.RemovePods(heir)
	n.Left("cni0")
}

// Somebody kills a pod behind containerd's back; kubelet then stops and removes it.
func TestKilledPod(t *testing.T) {
	tried.Row(t, "a pod whose process is killed")
	n := newNode(t)
	c := n.PodConfig("web")
	bed.Publish(c, 8080)
	p := n.RunPod(c)
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.Run("kill", "-9", p.PID)
	n.Wait("the pod is not ready", func() bool {
		s, err := n.Pods.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.ID})
		return err == nil && s.Status.State == cri.PodSandboxState_SANDBOX_NOTREADY
	})
	n.RemovePods(p)
	n.Left("cni0")
}

// Somebody deletes the network namespaces of two pods, one of which is killed.
func TestDeletedNamespace(t *testing.T) {
	tried.Row(t, "a pod whose namespace is deleted")
	n := newNode(t)
	c := n.PodConfig("web")
	bed.Publish(c, 8080)
	c.Annotations["kubernetes.io/egress-bandwidth"] = "16M"
	killed, living := n.RunPod(c), n.RunPod(n.PodConfig("living"))
	n.Run("kill", "-9", killed.PID)
	n.Run("ip", "netns", "del", killed.Netns)
	n.Run("ip", "netns", "del", living.Netns)
	n.RemovePods(killed, living)
	n.Left("cni0")
}

// containerd is restarted: pods go on, and can be removed; those of before and
// of after have different addresses.
func TestRestart(t *testing.T) {
	tried.Row(t, "restart of containerd")
	n := newNode(t)
	c := n.PodConfig("web")
	bed.Publish(c, 8080)
	old := n.RunPod(c)
	talk := n.From().Talk(old.V4 + ":7")
	n.Stop()
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.Start()
	late := n.RunPod(n.PodConfig("late"))
	if late.V4 == old.V4 || late.V6 == old.V6 {
		t.Errorf("both pods have %s, %s", late.V4, late.V6)
	}
	n.Wants("web saw "+late.V4, late.From(n.Host).TCP(old.V4+":80"))
	talk.End()
	n.RemovePods(old, late)
	n.Left("cni0")
}

// ctr attaches and detaches without the CRI; it detaches with no namespace.
func TestCtr(t *testing.T) {
	tried.Row(t, "`ctr run --cni`")
	n := newNode(t)
	n.Ctr("images", "import", n.Dir+"/image.tar")
	out := n.Ctr("run", "--rm", "--cni", "--cgroup="+n.Cgroup()+"/brief", bed.ImageTag, "brief", "/bin/ip", "-o", "addr", "show", "eth0")
	n.wants(out, "inet 10.88.0.2/16")
	n.wants(out, "inet6 fd00:88::2/64")
	n.Left("cni0")
}
