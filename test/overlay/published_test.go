package overlay

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// publishing is a list with two published ports: of TCP and of UDP.
func publishing(list string) string {
	const ports = `"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}, {"hostPort": 8080, "containerPort": 80, "protocol": "udp"}]}`
	return strings.Replace(list, `"type": "portmap",`, `"type": "portmap", `+ports+`,`, 1)
}

// A published port is reached from containers of all hosts, from the hosts and from
// outside, by both families, though the hosts drop what they are not told to forward and
// the host's rules also meet what stays within a bridge. The container sees the address of
// the host that its client is on.
func TestPublished(t *testing.T) {
	s := withEtcd(t, "networkDir: "+confs, "dev: up0")
	h1, h2, h3 := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	for _, h := range s.Hosts {
		must(t, h.Write(confs+"10-first.conflist", first))
		_, err := h.Sh(s.ctx, "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; for k in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do echo 1 >$k; done 2>/dev/null || true")
		must(t, err)
	}
	if out, err := h1.Netcleat(s.ctx, "network", "create", "-d", "overlay", "--subnet", "10.100.0.0/16", "--subnet", "fd00:100::/64", "web"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	list := s.conflist(h1, "web")
	for _, h := range s.Hosts[1:] {
		s.conflist(h, "web")
	}
	a, b, d := s.add(h1, list, "a"), s.add(h2, list, "b"), s.add(h3, list, "d")
	c := s.add(h3, publishing(list), "c")
	s.all(a, b, c, d)
	_, err := h3.Sh(s.ctx, "ip netns exec c "+s.peer()+" serve 80 >/run/peer 2>&1 &")
	must(t, err)

	own := map[*lab.Host]int{h1: 0, h2: 1, h3: 2}
	for _, to := range []string{"192.0.2.13", "2001:db8::13"} {
		is6 := netip.MustParseAddr(to).Is6()
		at := func(h *lab.Host) string {
			if is6 {
				return fmt.Sprintf("2001:db8::%d", 11+own[h])
			}
			return h.Addr.String()
		}
		for _, protocol := range []string{"tcp", "udp"} {
			ask := []string{s.peer(), "ask", protocol, net.JoinHostPort(to, "8080")}
			saw := func(who, want string, answer func() (string, error)) {
				t.Helper()
				must(t, lab.Until(s.ctx, who+" is answered by "+strings.Join(ask[2:], " "), func() error {
					out, err := answer()
					if err == nil && !strings.Contains(out, "saw "+want+"\n") {
						err = fmt.Errorf("%s, want %s", out, want)
					}
					return err
				}))
			}
			for _, from := range []*lab.Container{a, b} {
				saw(from.Name, at(from.Host), func() (string, error) { return from.In(s.ctx, ask...) })
			}
			gateway := map[bool]string{false: "10.100.0.1", true: "fd00:100::1"}[is6]
			for _, from := range []*lab.Container{c, d} { // by way of the host, which masquerades them
				saw(from.Name, gateway, func() (string, error) { return from.In(s.ctx, ask...) })
			}
			for _, h := range s.Hosts {
				saw(h.Name, at(h), func() (string, error) { return h.Run(s.ctx, ask...) })
			}
			outside := map[bool]string{false: "192.0.2.2", true: "2001:db8::2"}[is6]
			saw("a machine on the LAN", outside, func() (string, error) {
				out, err := s.OnRouter(s.ctx, ask...).Output()
				return string(out), err
			})
		}
	}
}
