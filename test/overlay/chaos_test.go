package overlay

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// Containers come and go on three hosts, in small blocks, while daemons and members of
// etcd are killed, hosts are cut off and entries of the kernel are deleted. Afterwards each
// host forwards as etcd says, and all containers reach each other.
func TestChaos(t *testing.T) {
	s := withEtcd(t)
	small := strings.NewReplacer(`"blockSize": 28`, `"blockSize": 30`, "10.100.0.0/24", "10.100.0.0/22").Replace(web)
	for i, h := range s.Hosts { // so that each has an uplink
		must(t, s.add(h, small, fmt.Sprint("first", i)).Detach(s.ctx))
	}
	stop := make(chan struct{})
	left := make([][]*lab.Container, len(s.Hosts))
	var wg sync.WaitGroup
	for i, h := range s.Hosts {
		wg.Go(func() { left[i] = s.churn(h, small, stop) })
	}
	rounds := 3
	if os.Getenv("FAULTS") == "all" {
		rounds = 90
	}
	for i := range rounds {
		s.disturb(s.Hosts[i%len(s.Hosts)], (i+i/len(s.Hosts))%3)
	}
	close(stop)
	wg.Wait()
	s.inStep()
	cs := slices.Concat(left...)
	if len(cs) == 0 {
		t.Fatal("no container is left: this tests nothing")
	}
	has := map[netip.Addr]string{}
	for _, c := range cs {
		for _, a := range c.Addr {
			if o := has[a]; o != "" {
				t.Errorf("%s and %s have %s", o, c.Name, a)
			}
			has[a] = c.Name
		}
	}
	s.all(cs...)
}

// churn attaches and detaches containers of a host, as often as it can. It returns those that
// are left.
func (s *story) churn(h *lab.Host, list string, stop <-chan struct{}) (all []*lab.Container) {
	const most = 3
	added, refused := 0, 0
	for n := 0; ; n++ {
		select {
		case <-stop:
			s.t.Logf("%s: %d containers, %d were refused", h.Name, added, refused)
			return all
		default:
		}
		c, err := h.Attach(s.ctx, list, fmt.Sprint(h.Name, "n", n), "")
		if err != nil { // without daemon or etcd there is no block for it
			refused++
			continue
		}
		added++
		if all = append(all, c); len(all) > most {
			if err := all[0].Detach(s.ctx); err != nil {
				s.t.Errorf("DEL of %s: %v", all[0].Name, err)
			}
			all = all[1:]
		}
	}
}

// disturb breaks something of a host, and repairs what no one else does.
func (s *story) disturb(h *lab.Host, how int) {
	s.t.Helper()
	switch how {
	case 0:
		must(s.t, h.Kill(s.ctx, lab.Daemon))
		_, err := h.Sh(s.ctx, `bridge fdb show dev vxlan100 | grep ' dst ' | head -3 | while read mac rest; do bridge fdb del $mac dev vxlan100 self; done
			ip -4 neigh show dev web0 nud permanent | head -3 | while read a rest; do ip neigh del $a dev web0; done`)
		must(s.t, err)
		must(s.t, h.StartDaemon(s.ctx))
	case 1:
		must(s.t, h.Kill(s.ctx, lab.Etcd))
		must(s.t, h.StartMember(s.ctx))
	case 2:
		must(s.t, h.Cut(s.ctx))
		if out, err := h.Sh(s.ctx, "ping -c2 -W1 192.0.2.2"); err == nil {
			s.t.Errorf("%s is not cut off: %s", h.Name, out)
		}
		must(s.t, h.Join(s.ctx))
	}
}

// forwards compares what a host's kernel forwards on web with the blocks that etcd has,
// without the code of the daemon.
func (s *story) forwards(h *lab.Host, uplink string) error {
	if out, err := h.Run(s.ctx, "ip", "link", "show", uplink); err != nil && strings.Contains(out, "does not exist") {
		return nil // nothing was attached there
	}
	out, err := h.Netcleat(s.ctx, "cluster", "status", "-o", "json")
	if err != nil {
		return err
	}
	var status struct {
		Networks []struct {
			Name   string
			Owners []struct {
				Host, VTEP string
				Blocks     []netip.Prefix
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	var want []string
	for _, n := range status.Networks {
		for _, o := range n.Owners {
			for _, b := range o.Blocks {
				for a := b.Addr(); n.Name == "web" && o.Host != h.Name && o.VTEP != "" && b.Contains(a); a = a.Next() {
					if four := a.As4(); a != netip.MustParseAddr("10.100.0.1") {
						want = append(want, fmt.Sprintf("0a:6e:%02x:%02x:%02x:%02x dst %s", four[0], four[1], four[2], four[3], o.VTEP))
					}
				}
			}
		}
	}
	fdb, err := h.Sh(s.ctx, "bridge fdb show dev "+uplink)
	var have []string
	for line := range strings.Lines(fdb) {
		if w := strings.Fields(line); len(w) > 2 && w[1] == "dst" {
			have = append(have, strings.Join(w[:3], " "))
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	if err == nil && !slices.Equal(want, have) {
		err = errors.New(h.Name + " forwards:\n" + strings.Join(have, "\n") + "\netcd says:\n" + strings.Join(want, "\n"))
	}
	return err
}
