package overlay

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// confs is where the daemons write networks.
const confs = "/etc/cni/net.d/"

// first is a network that comes before all of the cluster's.
const first = `{"cniVersion": "1.0.0", "name": "first", "plugins": [{"type": "bridge", "bridge": "first0"}]}`

// conflist waits for a host to have a network, and returns its file.
func (s *story) conflist(h *lab.Host, name string) (text string) {
	s.t.Helper()
	must(s.t, lab.Until(s.ctx, h.Name+" has network "+name, func() error {
		b, err := os.ReadFile(h.Path(confs + "netcleat-" + name + ".conflist"))
		text = string(b)
		if err != nil {
			err = errors.Join(err, errors.New(h.Log(lab.Daemon)))
		}
		return err
	}))
	return text
}

// without waits until a host does not have a network, and nothing of it.
func (s *story) without(h *lab.Host, name string) {
	s.t.Helper()
	must(s.t, lab.Until(s.ctx, h.Name+" has no network "+name, func() error {
		_, err := h.Sh(s.ctx, "! test -e "+confs+"netcleat-"+name+".conflist && ! ip link show br-"+name)
		if err != nil {
			err = errors.Join(err, errors.New(h.Log(lab.Daemon)))
		}
		return err
	}))
}

var vni = regexp.MustCompile(`"id": (\d+)`)

// A network is created once and exists on all hosts, as long as something is attached
// to it; the daemons touch no file that is not theirs.
func TestCreateOnce(t *testing.T) {
	s := withEtcd(t, "networkDir: "+confs, "dev: up0")
	h1, h2, h3 := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	for _, h := range s.Hosts[:2] {
		must(t, h.Write(confs+"10-first.conflist", first))
	}
	foreign := strings.Replace(first, `"first"`, `"mine"`, 1)
	must(t, h2.Write(confs+"netcleat-mine.conflist", foreign))

	// At the same time, from two hosts: each gets a VNI of its own.
	var wg sync.WaitGroup
	for name, h := range map[string]*lab.Host{"web": h1, "shop": h2, "mine": h1} {
		wg.Go(func() {
			subnets := map[string][]string{"web": {"10.100.0.0/16", "fd00:100::/64"}, "shop": {"10.101.0.0/16", "fd00:101::/64"}, "mine": {"10.102.0.0/16", "fd00:102::/64"}}[name]
			if out, err := h.Netcleat(s.ctx, "network", "create", "-d", "overlay", "--subnet", subnets[0], "--subnet", subnets[1], name); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	ids := map[string]bool{}
	for _, name := range []string{"web", "shop", "mine"} {
		ids[vni.FindString(s.conflist(h1, name))] = true
	}
	if len(ids) != 3 {
		t.Errorf("VNIs %v", ids)
	}
	if got := s.conflist(h2, "mine"); got != foreign {
		t.Errorf("the daemon has changed a file that is not its own: %s", got)
	}
	if out, err := h3.Netcleat(s.ctx, "network", "create", "-d", "overlay", "--subnet", "10.103.0.0/16", "web"); err == nil || !strings.Contains(out, "exists in the cluster already") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := h3.Sh(s.ctx, "test -e "+confs+"netcleat-web.conflist"); err == nil {
		t.Error("a network is the first file of a host, which is that of all pods")
	}
	must(t, h3.Write(confs+"10-first.conflist", first))

	a, c := s.add(h1, s.conflist(h1, "web"), "a"), s.add(h3, s.conflist(h3, "web"), "c")
	s.all(a, c)
	if out, err := h3.Netcleat(s.ctx, "network", "ls"); err != nil || !strings.Contains(out, "web") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := h1.Netcleat(s.ctx, "network", "rm", "web"); err == nil || !strings.Contains(out, "has attachments") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := h1.Netcleat(s.ctx, "network", "rm", "mine"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	out, err := h2.Netcleat(s.ctx, "network", "rm", "web", "shop")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.without(h2, "web")
	s.without(h3, "shop")
	s.all(a, c)
	must(t, a.Detach(s.ctx))
	must(t, c.Detach(s.ctx))
	s.without(h1, "web")
	s.without(h3, "web")
	if out, err := h1.Sh(s.ctx, "ip -o link show type vxlan; nft list ruleset"); err != nil || strings.Contains(out, "vxlan") {
		t.Errorf("left behind: %v %s", err, out)
	}
}
