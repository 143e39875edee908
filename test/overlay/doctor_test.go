package overlay

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// doctor finds what keeps hosts from reaching each other's containers, and the command
// that it prints repairs it. Without damage it finds nothing.
func TestDoctor(t *testing.T) {
	s := withEtcd(t)
	h1, h3 := s.Hosts[0], s.Hosts[2]
	a, c := s.add(h1, web, "a"), s.add(h3, web, "c")
	s.all(a, c)
	must(t, lab.Until(s.ctx, "doctor finds nothing", func() error {
		if out, err := h1.Netcleat(s.ctx, "doctor"); strings.Contains(out, "network web: ") && strings.Contains(out, "problem") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
	restart := func() {
		must(t, h1.Kill(s.ctx, lab.Daemon))
		must(t, h1.StartDaemon(s.ctx))
		s.inStep()
	}
	for _, one := range []struct {
		damage, finds string
		repair        func() // nil: the command that doctor prints
		unreached     bool
	}{
		{"iptables -A INPUT -p udp --dport 4789 -j DROP", "ip filter INPUT drops udp/4789 from hosts 192.0.2.13", nil, true},
		{
			"nft 'table inet strict { chain in { type filter hook input priority 0; policy drop; ct state established,related accept; iif lo accept; meta l4proto { tcp, icmp, ipv6-icmp } accept; }; }'",
			"inet strict in drops udp/4789 from hosts 192.0.2.13", nil, true,
		},
		{"nft 'table ip strict { chain out { type filter hook output priority 0; udp dport 4789 drop; }; }'", "ip strict out drops udp/4789 to hosts 192.0.2.13", nil, true},
		{
			"nft 'table ip other { chain pre { type nat hook prerouting priority -100; udp dport 4789 dnat to 10.100.0.9; }; }'",
			"ip other pre gives udp/4789 from host 192.0.2.13 another destination", s.sh(h1, "nft delete table ip other"), false,
		},
		{"ip link set up0 mtu 1400", "uplink vxlan100 has an MTU of 1450, of which the interface to the other hosts lets only 1350 through", s.sh(h1, "ip link set up0 mtu 1500"), false},
		{
			"bridge fdb del " + c.MAC + " dev vxlan100 self; ip neigh del " + c.Addr[1].String() + " dev web0; bridge fdb add 0a:6e:0a:64:00:f0 dev vxlan100 dst 192.0.2.77 self",
			"of the entries that forward to other hosts, 2 are missing and 1 should not be there", restart, true,
		},
		{put("/netcleat/net/web/vtep/h9", "100 4789 192.0.2.13"), "hosts h3 and h9 are both at 192.0.2.13", s.sh(h1, del("/netcleat/net/web/vtep/h9")), false},
	} {
		out, err := h1.Sh(s.ctx, one.damage)
		if err != nil {
			t.Fatalf("%s: %v %s", one.damage, err, out)
		}
		if _, err := a.In(s.ctx, "ping", "-c1", "-W1", c.Addr[0].String()); err == nil && one.unreached {
			t.Errorf("%s: has no effect", one.damage)
		}
		command := s.finding(h1, one.finds)
		if one.repair != nil {
			one.repair()
		} else if out, err := h1.Sh(s.ctx, command); err != nil {
			t.Errorf("%s: %v %s", command, err, out)
		}
		s.all(a, c)
		if out, _ := h1.Netcleat(s.ctx, "doctor"); strings.Contains(out, one.finds) {
			t.Errorf("%s\nhas no effect: %s", command, out)
		}
	}
}

// sh is a script for a host.
func (s *story) sh(h *lab.Host, script string) func() {
	return func() {
		s.t.Helper()
		_, err := h.Sh(s.ctx, script)
		must(s.t, err)
	}
}

// finding waits until doctor finds something of web, and returns the command for it.
func (s *story) finding(h *lab.Host, text string) (command string) {
	s.t.Helper()
	must(s.t, lab.Until(s.ctx, "doctor finds: "+text, func() error {
		out, _ := h.Netcleat(s.ctx, "doctor") // fails where it finds a problem
		_, rest, found := strings.Cut(out, "network web: "+text)
		if !found {
			return errors.New(out)
		}
		_, rest, _ = strings.Cut(rest, "-> ")
		command, _, _ = strings.Cut(rest, "\n")
		return nil
	}))
	return command
}

// put is a command that writes a key of etcd.
func put(key, value string) string {
	return gateway("put", map[string]string{"key": key, "value": value})
}

// del is one that deletes a key.
func del(key string) string { return gateway("deleterange", map[string]string{"key": key}) }

func gateway(method string, args map[string]string) string {
	var all []string
	for k, v := range args {
		all = append(all, fmt.Sprintf("%q: %q", k, base64.StdEncoding.EncodeToString([]byte(v))))
	}
	return fmt.Sprintf("curl -sS --fail http://192.0.2.11:2379/v3/kv/%s -d '{%s}'", method, strings.Join(all, ", "))
}
