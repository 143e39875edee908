package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/cluster/lab"
	"github.com/netcleat/netcleat/test/e2e/bed"
)

// delegated is the list that flannel's plugin makes for bridge of what flanneld says.
const delegated = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
	{"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false, "mtu": %s,
	 "ipam": {"type": "host-local", "ranges": [[{"subnet": "%s"}]], "routes": [{"dst": "%s"}]}},
	{"type": "portmap", "capabilities": {"portMappings": true}}]}`

// flannel starts flanneld on a host, and returns the list for bridge.
func (s *story) flannel(h *lab.Host, flanneld string) string {
	s.t.Helper()
	must(s.t, h.Start(s.ctx, "flanneld", flanneld, "-etcd-endpoints", s.Endpoints(), "-iface", "up0", "-ip-masq"))
	var env map[string]string
	must(s.t, lab.Until(s.ctx, "flanneld of "+h.Name+" has a subnet", func() error {
		b, err := os.ReadFile(h.Path("/run/flannel/subnet.env"))
		if err != nil {
			return errors.Join(err, errors.New(h.Log("flanneld")))
		}
		env = map[string]string{}
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			env[key] = value
		}
		return nil
	}))
	gateway, err := netip.ParsePrefix(env["FLANNEL_SUBNET"])
	must(s.t, err)
	return fmt.Sprintf(delegated, env["FLANNEL_MTU"], gateway.Masked(), env["FLANNEL_NETWORK"])
}

// flannel in front of bridge: containers of three hosts reach each other under their own
// addresses, and a published port; a killed flanneld loses no packet.
func TestFlannel(t *testing.T) {
	if os.Getenv("FLANNEL") == "" {
		t.Skip("flanneld takes minutes to build: make test-flannel")
	}
	flanneld := bed.Client(t, "flannel")
	s := newStory(t)
	must(t, s.StartEtcd(s.ctx))
	h1, h3 := s.Hosts[0], s.Hosts[2]
	must(t, lab.Until(s.ctx, "etcd has flannel's network", func() error {
		_, err := h1.Sh(s.ctx, put("/coreos.com/network/config", `{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}`))
		return err
	}))
	var cs []*lab.Container
	for i, h := range s.Hosts {
		list := s.flannel(h, flanneld)
		if h == h3 {
			list = publishing(list)
		}
		cs = append(cs, s.add(h, list, fmt.Sprint("c", i+1)))
	}
	a, c := cs[0], cs[2]
	must(t, lab.Until(s.ctx, "flanneld knows the other hosts", func() error {
		return errors.Join(a.Ping(s.ctx, cs[1].Addr[0]), a.Ping(s.ctx, c.Addr[0]), cs[1].Ping(s.ctx, c.Addr[0]))
	}))
	s.all(cs...)
	s.large(a, c)
	_, err := h3.Sh(s.ctx, "ip netns exec "+c.Name+" "+s.peer()+" serve 80 >/dev/null 2>&1 &")
	must(t, err)
	for addr, saw := range map[string]string{c.Addr[0].String() + ":80": a.Addr[0].String(), h3.Addr.String() + ":8080": h1.Addr.String()} {
		must(t, lab.Until(s.ctx, addr+" answers", func() error {
			out, err := a.In(s.ctx, s.peer(), "ask", "tcp", addr)
			if err == nil && !strings.Contains(out, "saw "+saw+"\n") {
				err = errors.New(out)
			}
			return err
		}))
	}
	if lost := s.under(a, c, func() {
		must(t, h3.Kill(s.ctx, "flanneld"))
		_, err := h3.Sh(s.ctx, "touch -d 2000-01-01 /run/flannel/subnet.env")
		must(t, err)
		s.flannel(h3, flanneld)
		must(t, lab.Until(s.ctx, "flanneld has started again", func() error {
			_, err := h3.Sh(s.ctx, "find /run/flannel/subnet.env -newermt 2001-01-01 | grep .")
			return err
		}))
	}); lost != "0%" {
		t.Errorf("%s of the packets were lost while flanneld was killed", lost)
	}
	for _, c := range cs {
		must(t, c.Check(s.ctx))
		must(t, c.Detach(s.ctx))
	}
}
