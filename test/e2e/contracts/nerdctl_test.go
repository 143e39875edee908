package contracts

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// without is what a runtime says when it has forgotten the namespace.
func without(rt *libcni.RuntimeConf) *libcni.RuntimeConf {
	bare := *rt
	bare.NetNS = ""
	return &bare
}

// nerdctl detaches before it attaches, and in the end, without a namespace.
func TestNerdctlStartAndStop(t *testing.T) {
	h := bed.New(t)
	for _, conflist := range []string{nerdctlList, nerdctlUserList} {
		l := h.List(conflist)
		web := h.Container("default-web")
		web.Args = [][2]string{{"NERDCTL_CNI_DHCP_HOSTNAME", "web"}, {"IgnoreUnknown", "1"}}
		web.CapabilityArgs["portMappings"] = portMappings(8080)
		for range 2 {
			h.Del(l, without(web))
			r := h.Add(l, web)
			h.Serve("default-web", "80")
			h.Wants("default-web saw 192.0.2.2", h.LAN().TCP("192.0.2.1:8080"))
			h.Wants("default-web saw 192.0.2.1", h.From().TCP("192.0.2.1:8080"))
			if len(r.Interfaces) < 3 || len(r.IPs) == 0 {
				t.Errorf("result: %+v", r)
			}
			h.Sh("kill $(ip netns pids default-web)")
			h.Del(l, without(web))
		}
		h.RemoveContainers("default-web")
	}
	h.Left(bridges...)
}

// A container joins all its networks at once.
func TestNerdctlAttachesInParallel(t *testing.T) {
	h := bed.New(t)
	rt := h.Container("default-many")
	var lists []*libcni.NetworkConfigList
	var all sync.WaitGroup
	for i := range 16 {
		conflist := strings.NewReplacer("nerdctl0", fmt.Sprintf("br-many%d", i), "10.4.0.", fmt.Sprintf("10.5.%d.", i), `"bridge",`, `"many`+fmt.Sprint(i)+`",`).Replace(nerdctlList)
		conflist = strings.ReplaceAll(conflist, `"type": "many`+fmt.Sprint(i)+`"`, `"type": "bridge"`)
		lists = append(lists, h.List(conflist))
	}
	on := func(i int) *libcni.RuntimeConf {
		c := *rt
		c.IfName = fmt.Sprintf("eth%d", i)
		return &c
	}
	for i, l := range lists {
		all.Go(func() {
			if _, err := h.Runtime().AddNetworkList(t.Context(), l, on(i)); err != nil {
				t.Errorf("add %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if got := strings.Count(h.Run("ip", "-n", "default-many", "-o", "-4", "addr", "show", "scope", "global"), "\n"); got != 16 {
		t.Errorf("%d addresses, want 16", got)
	}
	var names []string
	for i, l := range lists {
		names = append(names, fmt.Sprintf("br-many%d", i))
		all.Go(func() {
			if err := h.Runtime().DelNetworkList(t.Context(), l, without(on(i))); err != nil {
				t.Errorf("del %d: %v", i, err)
			}
		})
	}
	all.Wait()
	h.RemoveContainers("default-many")
	h.Left(names...)
}

// nerdctl finds a container's published ports, and the rules of a container that
// died, in the text of iptables: chains and comments are the reference's.
func TestNerdctlReadsIptables(t *testing.T) {
	h := bed.New(t, "iptables")
	l := h.List(strings.Replace(nerdctlList, `"type": "portmap",`, `"type": "portmap", "backend": "iptables",`, 1))
	web := h.Container("default-web")
	web.CapabilityArgs["portMappings"] = portMappings(8080)
	h.Add(l, web)
	nat := h.Run("iptables", "-t", "nat", "-S")
	for _, want := range []string{
		"-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment \"dnat name: \\\"bridge\\\" id: \\\"default-web\\\"\" -m multiport --dports 8080 -j CNI-DN-",
		"-p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.4.0.2:80",
	} {
		if !strings.Contains(nat, want) {
			t.Errorf("%s is not in:\n%s", want, nat)
		}
	}
	h.Del(l, without(web))
	for _, table := range []string{"nat", "filter", "mangle"} {
		if rules := h.Run("iptables", "-t", table, "-S"); strings.Contains(rules, "default-web") || strings.Contains(rules, "CNI-DN-") {
			t.Errorf("left in %s:\n%s", table, rules)
		}
	}
	h.RemoveContainers("default-web")
}
