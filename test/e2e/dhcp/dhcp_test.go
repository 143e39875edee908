// Package dhcp has the stories of containers on a LAN that get their addresses from
// a DHCP server: dnsmasq, the daemon and the plugins as they are installed.
package dhcp

import (
	"os"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// masters are the plugins, with their keys, on a host whose br0 leads to the LAN by
// lan0.
var masters = map[string]string{
	"bridge":  `"type": "bridge", "bridge": "br0"`,
	"macvlan": `"type": "macvlan", "master": "br0"`,
}

// A container gets its lease, reaches the LAN with the hardware address that the
// lease is for, and gives the address back.
func TestLAN(t *testing.T) {
	for name, keys := range masters {
		t.Run(name, func(t *testing.T) {
			h := bed.New(t, "dnsmasq")
			serve(h)
			list := h.List(`{"cniVersion": "1.1.0", "name": "lan", "plugins": [{` + keys + `, "ipam": {"type": "dhcp"}}]}`)
			c := h.Container("c1")
			h.Mark()
			res := h.Add(list, c)
			ip, mac := res.IPs[0].Address.IP.String(), res.Interfaces[len(res.Interfaces)-1].Mac
			h.Wait("the server gives "+ip+" to "+mac, func() bool { return said(h, "DHCPACK(lan0) "+ip+" "+mac) })
			if got := h.Run("ip", "-n", "c1", "link", "show", "eth0"); !strings.Contains(got, mac) {
				t.Errorf("the lease is for %s, the container has %s", mac, got)
			}
			h.Run("ip", "netns", "exec", "c1", "ping", "-c1", "-W2", "192.0.2.2")
			h.Check(list, c)
			h.Del(list, c)
			h.Wait("the server has "+ip+" back", func() bool { return said(h, "DHCPRELEASE(lan0) "+ip) })
			h.Left()
		})
	}
}

const log = "/run/dnsmasq.log"

// serve starts the LAN's DHCP server and the host's daemon, and makes lan0 of the
// host a port of its bridge.
func serve(h *bed.Host) {
	h.InstallOurs()
	h.Sh(`
		ip link add br0 type bridge
		ip addr flush dev lan0
		ip link set lan0 master br0
		ip link set br0 up
		mkdir -p /run/cni
		ip netns exec lan dnsmasq --conf-file=/dev/null --port=0 --interface=lan0 --pid-file= --user=root --leasefile-ro --log-dhcp --no-ping \
			--dhcp-authoritative --dhcp-range=192.0.2.64,192.0.2.127,255.255.255.0,120 --log-facility=` + log + `
		` + h.Netcleat() + ` dhcp daemon >/run/daemon.log 2>&1 &`)
	h.Wait("the daemon listens", func() bool {
		_, err := h.Try("test", "-S", "/run/cni/dhcp.sock")
		return err == nil
	})
}

// said reports whether the server's log has the text.
func said(h *bed.Host, text string) bool {
	b, err := os.ReadFile(h.Path(log))
	return err == nil && strings.Contains(string(b), text)
}
