// Package changeover has the stories of a host that changes over from the
// reference to netcleat, and back, while its containers run.
package changeover

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// network is one that containers live in while the plugins change.
type network struct {
	containers int
	// conflist of the i-th container, as users have one for each device.
	conflist func(i int) string
	// prepare gives the host what the i-th container needs.
	prepare func(h *bed.Host, i int)
	// reach is where the neighbour reaches the i-th container's port 7.
	reach func(i int, address string) string
}

// chain is a list with a bridge, which masquerades as it is told, and the plugins.
func chain(masquerade, plugins string) func(int) string {
	return func(int) string {
		return `{"cniVersion": "1.1.0", "name": "net", "plugins": [
			{"type": "bridge", "bridge": "br-net", "isGateway": true, "hairpinMode": true, ` + masquerade + `,
			 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.30.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}` + plugins + `]}`
	}
}

func published(i int, _ string) string    { return fmt.Sprintf("192.0.2.1:%d", 10000+i) }
func direct(_ int, address string) string { return address + ":7" }
func nothing(*bed.Host, int)              {}

const portmap = `, {"type": "portmap", "capabilities": {"portMappings": true}`

var networks = map[string]network{
	"iptables": {20, chain(`"ipMasq": true, "ipMasqBackend": "iptables"`, portmap+`, "backend": "iptables"}, {"type": "firewall", "backend": "iptables"}`), nothing, published},
	"nftables": {4, chain(`"ipMasq": true, "ipMasqBackend": "nftables"`, portmap+`, "backend": "nftables"}, {"type": "firewall"}`), nothing, published},
	"default, tuning, bandwidth": {4, chain(`"ipMasq": true`, portmap+`}, {"type": "firewall"}, {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400},
		{"type": "bandwidth", "ingressRate": 80000000, "ingressBurst": 800000, "egressRate": 80000000, "egressBurst": 800000}`), nothing, published},
	"macvlan": {4, func(int) string {
		return `{"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "macvlan", "master": "lan0",
			"ipam": {"type": "host-local", "ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.64"}]]}}]}`
	}, nothing, direct},
	"host-device": {4, func(i int) string {
		return fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "host-device", "device": "dev%d",
			"ipam": {"type": "host-local", "ranges": [[{"subnet": "198.51.100.0/24", "rangeStart": "198.51.100.64"}]]}}]}`, i)
	}, func(h *bed.Host, i int) {
		h.Sh(fmt.Sprintf(`
			ip -n lan link show br-lan >/dev/null 2>&1 || {
				ip -n lan link add br-lan type bridge
				ip -n lan addr add 198.51.100.1/24 dev br-lan
				ip -n lan link set br-lan up
			}
			ip link add dev%[1]d type veth peer name peer%[1]d netns lan
			ip -n lan link set peer%[1]d master br-lan up`, i))
	}, direct},
}

// container is one that lives through the changeover.
type container struct {
	list    *libcni.NetworkConfigList
	rt      *libcni.RuntimeConf
	address string
	talk    *bed.Talk
}

// start attaches the i-th container and begins a conversation with it.
func (n network) start(h *bed.Host, i int) container {
	name := fmt.Sprint("c", i)
	c := container{list: h.List(n.conflist(i)), rt: h.Container(name)}
	c.rt.CapabilityArgs["portMappings"] = []map[string]any{{"hostPort": 10000 + i, "containerPort": 7, "protocol": "tcp"}}
	c.address = h.Add(c.list, c.rt).IPs[0].Address.IP.String()
	h.Serve(name, "80")
	c.talk = h.LAN().Talk(n.reach(i, c.address))
	return c
}

// stop ends the conversation, which must have lasted, and detaches.
func (c container) stop(h *bed.Host) {
	c.talk.End()
	h.Sh("kill $(ip netns pids " + c.rt.ContainerID + ")")
	h.Del(c.list, c.rt)
	h.RemoveContainers(c.rt.ContainerID)
}

// collect removes what is left of containers that are gone. Where no veth pair
// proves that, netcleat gc must see all processes of the machine, and those of a
// story's host see but their own: there it is the plugins' GC, which takes away
// the chains, too, that the reference leaves behind its last container.
func (n network) collect(t *testing.T, h *bed.Host, list *libcni.NetworkConfigList) {
	t.Helper()
	if strings.Contains(string(list.Bytes), `"bridge"`) {
		h.Run(h.Netcleat(), "gc", "--cni-path", h.Plugins)
		for _, ours := range []string{"/run/netcleat/", "cni_plugins_masquerade", "net_", "cni_hostport"} {
			if state := h.State(); strings.Contains(state, ours) {
				t.Errorf("after netcleat gc: %s is left in\n%s", ours, state)
			}
		}
	}
	h.InstallOurs()
	h.GC(list)
}

// world makes the host of a story, with what its containers need, and room for
// as many again.
func (n network) world(t *testing.T) *bed.Host {
	t.Helper()
	h := bed.New(t, "iptables", "nft")
	for i := range 2 * n.containers {
		n.prepare(h, i)
	}
	h.Mark()
	return h
}

// Containers of the reference's live on under netcleat: their connections last
// while others come and go, and their DEL and GC are netcleat's.
func TestOver(t *testing.T) {
	for name, n := range networks {
		t.Run(name, func(t *testing.T) {
			h := n.world(t)
			h.InstallReference()
			var old, late []container
			for i := range n.containers {
				old = append(old, n.start(h, i))
			}
			h.Healthy() // by the reference's plugins
			h.InstallOurs("--backup")
			for _, c := range old {
				h.Check(c.list, c.rt)
			}
			h.Healthy("--deep")
			taken := map[string]bool{}
			for i := range n.containers {
				late = append(late, n.start(h, n.containers+i))
			}
			for _, c := range append(old, late...) {
				if taken[c.address] {
					t.Errorf("two containers have %s", c.address)
				}
				taken[c.address] = true
			}
			h.Healthy("--deep") // with attachments of both suites
			half := n.containers / 2
			var valid []*libcni.RuntimeConf
			for _, c := range append(old[half:], late...) {
				valid = append(valid, c.rt)
			}
			for _, c := range old[:half] {
				c.stop(h)
			}
			h.GC(old[0].list, valid...)
			for _, c := range append(old[half:], late...) {
				h.Check(c.list, c.rt)
			}
			for _, c := range append(old[half:], late...) {
				c.stop(h)
			}
			h.GC(old[0].list)
			h.Left("br-net")
		})
	}
}

// A container that the reference attached, and that is gone without a DEL: GC by
// netcleat takes away what is left of it.
func TestGarbageOfTheReference(t *testing.T) {
	for name, n := range networks {
		t.Run(name, func(t *testing.T) {
			h := n.world(t)
			h.InstallReference()
			c := n.start(h, 0)
			c.talk.End()
			h.InstallOurs()
			h.Sh("kill $(ip netns pids c0)")
			if strings.HasPrefix(name, "host-device") {
				h.Del(c.list, c.rt) // the device would be lost with the namespace
			}
			h.RemoveContainers("c0")
			h.GC(c.list)
			h.Left("br-net")
		})
	}
}

// And the way back: containers of netcleat's live on when the reference is back,
// whose DEL succeeds for each. What that cannot see is gone after one netcleat gc.
func TestBack(t *testing.T) {
	for name, n := range networks {
		t.Run(name, func(t *testing.T) {
			h := n.world(t)
			h.InstallReference()
			h.InstallOurs("--backup")
			var all []container
			for i := range n.containers {
				all = append(all, n.start(h, i))
			}
			h.InstallOurs("--restore")
			h.Healthy() // by the reference's plugins, with attachments of ours
			half := n.containers / 2
			for _, c := range all[:half] {
				c.stop(h)
			}
			for i := range half {
				all = append(all, n.start(h, n.containers+i))
			}
			for _, c := range all[half:] {
				c.stop(h)
			}
			n.collect(t, h, all[0].list)
			h.Left("br-net")
		})
	}
}

// Containers that were attached before MAC addresses depended on the machine keep
// theirs: CHECK and DEL go by what was recorded, whatever the machine's ID is now.
func TestMachineID(t *testing.T) {
	for name, keys := range map[string]string{
		"macvlan":           `"type": "macvlan", "master": "lan0"`,
		"bridge of layer 2": `"type": "bridge", "bridge": "br-net"`,
		"tap":               `"type": "tap"`,
	} {
		t.Run(name, func(t *testing.T) {
			h := bed.New(t)
			h.OwnEtc()
			h.InstallOurs()
			list := h.List(`{"cniVersion": "1.1.0", "name": "net", "plugins": [{` + keys + `}]}`)
			h.Sh("rm -f /etc/machine-id") // the address is what it was without one
			old := h.Container("c0")
			before := h.Add(list, old)
			h.Write("/etc/machine-id", strings.Repeat("2b", 16)+"\n")
			h.Check(list, old)
			late := h.Container("c1")
			h.Add(list, late)
			h.Del(list, late)
			h.Check(list, old)
			h.Del(list, old)
			after := h.Add(list, old)
			mac := func(r *current.Result) string { return r.Interfaces[len(r.Interfaces)-1].Mac }
			if mac(before) == mac(after) {
				t.Errorf("the address is %s with and without a machine-id", mac(after))
			}
			h.Del(list, old)
			h.RemoveContainers("c0", "c1")
			h.Left("br-net")
		})
	}
}
