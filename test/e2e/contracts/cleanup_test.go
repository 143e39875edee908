package contracts

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// What scripts run to clear a node of its pods, as k3s-killall.sh and the guides to
// kubeadm reset have it.
var cleanups = map[string]string{
	"k3s-killall": `
		ip netns show | sed 's/ .*//' | grep pod | xargs -r -n 1 ip netns delete
		ip link show | grep 'master cni0' | while read ignore iface ignore; do
			iface=${iface%%@*}
			[ -z "$iface" ] || ip link delete $iface
		done
		ip link delete cni0
		rm -rf /var/lib/cni/
		iptables-save | grep -v KUBE- | grep -v CNI- | grep -iv flannel | iptables-restore
		ip6tables-save | grep -v KUBE- | grep -v CNI- | grep -iv flannel | ip6tables-restore`,
	"kubeadm reset": `
		ip netns show | sed 's/ .*//' | grep pod | xargs -r -n 1 ip netns delete
		iptables -F && iptables -t nat -F && iptables -t mangle -F && iptables -X
		ip link delete cni0
		rm -rf /etc/cni/net.d /var/lib/cni`,
}

// The scripts know the reference's chains, not our tables, nor the journal. After
// one the next pods work, also with the port of one that is dead, and netcleat gc
// removes the rest.
func TestCleanupScripts(t *testing.T) {
	for name, script := range cleanups {
		t.Run(name, func(t *testing.T) {
			h := bed.New(t, "iptables")
			l := h.List(strings.ReplaceAll(nerdctlList, "nerdctl0", "cni0"))
			pod := h.Container("pod1")
			pod.CapabilityArgs["portMappings"] = portMappings(8080)
			other := h.Container("pod2")
			other.CapabilityArgs["portMappings"] = portMappings(8081)
			h.Add(l, pod)
			h.Add(l, other)
			h.Run("sh", "-c", script+"\ntrue") // scripts go on where a command fails
			next := h.Container("pod3")
			next.CapabilityArgs["portMappings"] = portMappings(8080)
			h.Add(l, next)
			h.Serve("pod3", "80")
			h.Wants("pod3 saw 192.0.2.2", h.LAN().TCP("192.0.2.1:8080"))
			out := h.Run(h.Netcleat(), "gc", "--cni-path", h.Plugins)
			h.Wants("pod3 saw 192.0.2.2", h.LAN().TCP("192.0.2.1:8080"))
			if rules := h.Run("nft", "list", "ruleset"); strings.Contains(rules, "8081") {
				t.Errorf("netcleat gc leaves the port of a dead pod: %s\n%s", out, rules)
			}
			h.Sh("kill $(ip netns pids pod3)")
			h.Del(l, next)
			h.RemoveContainers("pod3")
			h.Left("cni0")
		})
	}
}
