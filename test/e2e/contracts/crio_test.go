package contracts

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// CRI-O collects garbage at its start, in every network of the directory: in each
// only what is not valid goes, the attachments in others stay, and so do those
// in a network that is shared with another runtime and says so.
func TestCrioCollectsGarbage(t *testing.T) {
	h := bed.New(t)
	v11 := func(conflist string) string {
		return strings.NewReplacer(`"1.0.0"`, `"1.1.0"`, `"0.4.0"`, `"1.1.0"`).Replace(conflist)
	}
	own := h.List(v11(crioList))
	foreign := h.List(v11(podmanList))
	shared := h.List(strings.Replace(v11(nerdctlList), `"name":`, `"disableGC": true, "name":`, 1))
	valid, stale := h.Container("valid"), h.Container("stale")
	podman, nerdctl := h.Container("podman"), h.Container("nerdctl")
	h.Add(own, valid)
	h.Add(own, stale)
	h.Add(foreign, podman)
	h.Add(shared, nerdctl)
	h.Sh("rm /var/lib/cni/results/*stale*") // as CRI-O does where DEL failed
	h.GC(own, valid)
	h.GC(foreign, podman)
	h.GC(shared)
	h.Check(own, valid)
	h.Check(foreign, podman)
	h.Check(shared, nerdctl)
	if out, err := h.Try("ip", "-n", "stale", "link", "show", "eth0"); err == nil {
		t.Errorf("the stale attachment has its link: %s", out)
	}
	h.Del(foreign, podman)
	h.Del(shared, nerdctl)
	h.GC(own) // none is valid
	h.RemoveContainers("valid", "stale", "podman", "nerdctl")
	h.Left(bridges...)
}

// CRI-O checks at once, after its restart, and asks for the status all the time;
// it detaches with the configuration of its cache when the namespace is gone.
func TestCrioStartAndRestart(t *testing.T) {
	h := bed.New(t)
	l := h.List(strings.Replace(crioList, `"1.0.0"`, `"1.1.0"`, 1))
	rt := h.Container("c1")
	rt.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "web"}, {"K8S_POD_INFRA_CONTAINER_ID", "c1"}, {"K8S_POD_UID", "u1"}}
	rt.CapabilityArgs["bandwidth"] = map[string]any{"ingressRate": 8e6, "ingressBurst": int64(34359738360)}
	h.Add(l, rt)
	h.Check(l, rt)
	for range 10 {
		if err := h.Runtime().GetStatusNetworkList(t.Context(), l); err != nil {
			t.Error(err)
		}
	}
	cached, again, err := h.Runtime().GetNetworkListCachedConfig(l, rt)
	if err != nil {
		t.Fatal(err)
	}
	h.Check(h.List(string(cached)), again)
	h.RemoveContainers("c1")
	h.Del(h.List(string(cached)), again)
	h.Left(bridges...)
}
