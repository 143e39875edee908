package contracts

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// Rootless podman and nerdctl: a root who is a user of the machine, without
// privileges over it.
func TestRootless(t *testing.T) {
	all := map[string]string{"nerdctl, firewall by iptables": strings.Replace(nerdctlList, `"type": "firewall",`, `"type": "firewall", "backend": "iptables",`, 1)}
	for name, conflist := range lists {
		all[name] = conflist
	}
	for name, conflist := range all {
		t.Run(name, func(t *testing.T) {
			h := bed.NewRootless(t)
			h.Sh("! touch /etc/x 2>/dev/null && ! touch /var/x 2>/dev/null")
			l := h.List(conflist)
			web, other := h.Container("web"), h.Container("other")
			web.CapabilityArgs["portMappings"] = []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}
			r := h.Add(l, web)
			h.Add(l, other)
			h.Check(l, web)
			h.Serve("web", "80")
			h.Wants("web saw "+r.IPs[0].Gateway.String(), h.From().TCP(r.IPs[0].Address.IP.String()+":80"))
			if strings.Contains(conflist, "portmap") {
				h.Wants("web saw 192.0.2.2", h.LAN().TCP("192.0.2.1:8080"))
			}
			h.Sh("kill $(ip netns pids web)")
			h.Del(l, web)
			h.Del(l, without(other))
			h.RemoveContainers("web", "other")
			h.Left(bridges...)
		})
	}
}

// Where the kernel's settings cannot be written, those that hold what is wanted
// are left alone, and the first that does not is named.
func TestRootlessReadOnlySettings(t *testing.T) {
	h := bed.NewRootless(t)
	l := h.List(podmanList)
	web, late := h.Container("web"), h.Container("late")
	h.Sh(`
		echo 1 >/proc/sys/net/ipv4/ip_forward
		echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
		echo 0 >/proc/sys/net/ipv6/conf/default/accept_ra
		echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
		ip netns exec web sh -c 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6'
		mount --bind /proc/sys /proc/sys
		mount -o remount,bind,ro /proc/sys
		! echo 1 2>/dev/null >/proc/sys/net/ipv4/ip_forward`)
	h.Add(l, web)
	h.Check(l, web)
	_, err := h.Runtime().AddNetworkList(t.Context(), l, late)
	if err == nil || !strings.Contains(err.Error(), "net/ipv6/conf/eth0/disable_ipv6") {
		t.Errorf("want an error that names the setting, got %v", err)
	}
	h.Del(l, late)
	h.Del(l, web)
	h.RemoveContainers("web", "late")
	h.Left(bridges...)
}
