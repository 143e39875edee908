package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// daemons is where Debian has FRR's.
const daemons = "/usr/lib/frr/"

// startFRR starts FRR with the configuration that netcleat prints for the host.
func (s *story) startFRR(h *lab.Host) {
	s.t.Helper()
	conf, err := h.Netcleat(s.ctx, "cluster", "frr", "--local", h.Addr.String(), "--reflector", s.Hosts[0].Addr.String(), "--reflector", s.Hosts[1].Addr.String(), "--clients", "192.0.2.0/24")
	must(s.t, err)
	must(s.t, h.Write("/run/frr/frr.conf", conf))
	_, err = h.Run(s.ctx, "chown", "-R", "frr:frr", "/run/frr")
	must(s.t, err)
	must(s.t, h.Start(s.ctx, "zebra", daemons+"zebra", "-f", "/dev/null"))
	must(s.t, lab.Until(s.ctx, "zebra of "+h.Name+" listens", func() error {
		_, err := os.Stat(h.Path("/run/frr/zserv.api"))
		if err != nil {
			err = errors.Join(err, errors.New(h.Log("zebra")))
		}
		return err
	}))
	s.startBGP(h)
}

func (s *story) startBGP(h *lab.Host) {
	s.t.Helper()
	must(s.t, h.Start(s.ctx, "bgpd", daemons+"bgpd", "-f", "/run/frr/frr.conf"))
}

// evpn is an overlay network that FRR programs. Its addresses are host-local's: each
// host has a part of the range.
func evpn(part int) string {
	return fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "web", "plugins": [
	{"type": "bridge", "bridge": "web0", "isDefaultGateway": true, "ipMasq": true, "vxlan": {"id": 100, "dev": "up0", "control": "evpn"},
	 "ipam": {"type": "host-local", "ranges": [
		[{"subnet": "10.100.0.0/16", "rangeStart": "10.100.%[1]d.2", "rangeEnd": "10.100.%[1]d.99"}],
		[{"subnet": "fd00:100::/64", "rangeStart": "fd00:100::%[1]d:2", "rangeEnd": "fd00:100::%[1]d:99"}]]}}]}`, part)
}

// FRR as it is configured by netcleat: containers reach each other; the host's own bgpd
// or a reflector that is killed does not stop those of others.
func TestEVPN(t *testing.T) {
	if _, err := os.Stat(filepath.Join(daemons, "bgpd")); err != nil {
		t.Skip("no FRR here: scripts/test-deps installs it")
	}
	s := newStory(t)
	var cs []*lab.Container
	for i, h := range s.Hosts {
		s.startFRR(h)
		cs = append(cs, s.add(h, evpn(i+1), fmt.Sprint("c", i+1)))
	}
	eventually := func(what string) {
		t.Helper()
		must(t, lab.Until(s.ctx, what, func() error {
			var errs []error
			for _, from := range cs {
				for _, to := range cs {
					for _, a := range to.Addr {
						if from != to {
							errs = append(errs, from.Ping(s.ctx, a))
						}
					}
				}
			}
			err := errors.Join(errs...)
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, s.Hosts[2].Log("bgpd"))
			}
			return err
		}))
	}
	eventually("the containers reach each other")
	s.large(cs[0], cs[2])
	out, err := s.Hosts[2].Sh(s.ctx, "bridge fdb show dev vxlan100")
	must(t, err)
	if !strings.Contains(out, cs[0].MAC+" dst "+s.Hosts[0].Addr.String()+" self extern_learn") {
		t.Errorf("not what FRR programs:\n%s", out)
	}

	// One of the two reflectors restarts: no packet between other hosts is lost.
	lost := s.under(cs[1], cs[2], func() {
		must(t, s.Hosts[0].Kill(s.ctx, "bgpd"))
		s.startBGP(s.Hosts[0])
		must(t, lab.Until(s.ctx, "the reflector speaks to both others", func() error {
			out, err := s.Hosts[0].Run(s.ctx, "vtysh", "-c", "show bgp l2vpn evpn summary json")
			if err == nil && strings.Count(out, `"state":"Established"`) != 2 {
				err = errors.New(out)
			}
			return err
		}))
	})
	if lost != "0%" {
		t.Errorf("%s of the packets were lost while one reflector restarted", lost)
	}
	eventually("after a reflector restarted, the containers reach each other")

	// The bgpd of a host that is no reflector restarts: others do not notice, and the host
	// is reached again.
	lost = s.under(cs[0], cs[1], func() {
		must(t, s.Hosts[2].Kill(s.ctx, "bgpd"))
		s.startBGP(s.Hosts[2])
		eventually("after the host's own bgpd restarted, the containers reach each other")
	})
	if lost != "0%" {
		t.Errorf("%s of the packets between other hosts were lost while a bgpd restarted", lost)
	}

	// A container that is gone is not announced any more.
	must(t, cs[0].Detach(s.ctx))
	must(t, lab.Until(s.ctx, "FRR forgets the container", func() error {
		out, err := s.Hosts[2].Sh(s.ctx, "bridge fdb show dev vxlan100")
		if err == nil && strings.Contains(out, cs[0].MAC) {
			err = errors.New(out)
		}
		return err
	}))
}
