package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// proxying is set where this program is the proxies of etcd.
const proxying = "CLUSTER_PROXY"

// proxies are those between daemons and etcd, on the LAN's router.
type proxies struct {
	in   io.WriteCloser
	out  io.Reader
	wait func() error
}

// startProxies puts a proxy in front of each member, on the way of all daemons.
func (s *story) startProxies() *proxies {
	s.t.Helper()
	var all, via []string
	for i, h := range s.Hosts[:3] {
		all = append(all, fmt.Sprintf("192.0.2.2:%d=%s:2379", 2381+i, h.Addr))
		via = append(via, fmt.Sprintf("http://192.0.2.2:%d", 2381+i))
	}
	s.Via(via)
	self, err := os.Executable()
	must(s.t, err)
	cmd := s.OnRouter(context.Background(), self)
	cmd.Env = append(os.Environ(), proxying+"="+strings.Join(all, " "))
	p := &proxies{wait: cmd.Wait}
	p.in, err = cmd.StdinPipe()
	must(s.t, err)
	p.out, err = cmd.StdoutPipe()
	must(s.t, err)
	must(s.t, cmd.Start())
	return p
}

// calm has all requests pass from now on.
func (p *proxies) calm() error {
	_, err := io.WriteString(p.in, "calm\n")
	return err
}

// end ends the proxies, and returns how many requests were late.
func (p *proxies) end() (late int, err error) {
	if err := p.in.Close(); err != nil {
		return 0, err
	}
	b, err := io.ReadAll(p.out)
	if err != nil {
		return 0, err
	}
	if err := p.wait(); err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// oracle knows who has which address.
type oracle struct {
	mu    sync.Mutex
	who   map[netip.Addr]string
	dups  []string
	count map[string]int // of what happened
}

func (o *oracle) take(a netip.Addr, id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if had := o.who[a]; had != "" {
		o.dups = append(o.dups, fmt.Sprintf("%s has %s, and %s gets it", had, a, id))
	}
	o.who[a] = id
	o.count["ADDs"]++
}

// give is called before an address is given back.
func (o *oracle) give(a netip.Addr, id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.who[a] == id {
		delete(o.who, a)
	}
}

func (o *oracle) happened(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count[what]++
}

// stormy is a host in the storm.
type stormy struct {
	*lab.Host
	o    *oracle
	has  map[string]netip.Addr
	next int
}

const stormConf = `{"cniVersion":"1.0.0","name":"lan","type":"macvlan","ipam":{"type":"cluster-local","subnet":"10.0.0.0/26","reclaim":false}}`

func (h *stormy) call(ctx context.Context, verb, id, args string) ([]byte, error) {
	return h.Call(ctx, "cluster-local", stormConf, "CNI_COMMAND="+verb, "CNI_CONTAINERID="+id, "CNI_NETNS=/run/netns/c", "CNI_IFNAME=eth0", "CNI_ARGS="+args)
}

// add is an ADD that may fail for lack of an address.
func (h *stormy) add(ctx context.Context, args string) error {
	h.next++
	id := fmt.Sprintf("%s-%d", h.Name, h.next)
	out, err := h.call(ctx, "ADD", id, args)
	if err != nil {
		return err
	}
	var r current.Result
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	a, _ := netip.AddrFromSlice(r.IPs[0].Address.IP)
	h.has[id] = a.Unmap()
	h.o.take(h.has[id], id)
	if args != "" {
		h.o.happened("asked for an address")
	}
	return nil
}

func (h *stormy) del(ctx context.Context, most int) error {
	for id, a := range h.has {
		if most == 0 {
			return nil
		}
		most--
		h.o.give(a, id)
		if _, err := h.call(ctx, "DEL", id, ""); err != nil {
			return fmt.Errorf("DEL %s: %w", id, err)
		}
		delete(h.has, id)
	}
	return nil
}

// boot reboots the host. Its runtime deletes the sandboxes of before.
func (h *stormy) boot(ctx context.Context, meanwhile func() error) error {
	if err := h.Reboot(ctx); err != nil {
		return err
	}
	for id, a := range h.has {
		h.o.give(a, id)
	}
	if err := meanwhile(); err != nil {
		return err
	}
	if _, err := h.Run(ctx, "ip", "netns", "add", "c"); err != nil {
		return err
	}
	if err := h.del(ctx, len(h.has)); err != nil {
		return err
	}
	return h.StartDaemon(ctx)
}

// step is one thing that happens on the host.
func (h *stormy) step(ctx context.Context, s *story) error {
	switch n := rand.IntN(100); {
	case n < 4:
		h.o.happened("kills of daemons")
		if err := h.Kill(ctx, lab.Daemon); err != nil {
			return err
		}
		return h.StartDaemon(ctx)
	case n < 7:
		h.o.happened("suspended daemons")
		if err := h.Suspend(ctx, lab.Daemon); err != nil {
			return err
		}
		_ = pause(ctx, time.Duration(rand.IntN(6000))*time.Millisecond) // then it is resumed early
		return h.Resume(ctx, lab.Daemon)
	case n < 9 && !h.member(s):
		h.o.happened("boots")
		return h.boot(ctx, func() error { return nil })
	case n < 11 && !h.member(s):
		h.o.happened("releases")
		return h.boot(ctx, func() error {
			return lab.Until(ctx, h.Name+" is released", func() error {
				_, err := s.Hosts[0].Netcleat(ctx, "cluster", "release-host", h.Name, "--force")
				return err
			})
		})
	case n < 18:
		_ = h.add(ctx, "IP="+netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + rand.IntN(60))}).String()) // or not
	case n < 60 && len(h.has) < 9:
		_ = h.add(ctx, "") // or not
	default:
		return h.del(ctx, 1)
	}
	return nil
}

// member reports whether a member of etcd is on the host.
func (h *stormy) member(s *story) bool {
	return h.Host == s.Hosts[0] || h.Host == s.Hosts[1] || h.Host == s.Hosts[2]
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// TestStorm lets six hosts share a small network, with the programs as they are
// installed, while etcd's members and the daemons are killed and suspended, etcd is
// compacted, hosts boot and are released, and requests are delayed, lost, repeated and
// reordered on their way.
func TestStorm(t *testing.T) {
	s := newHosts(t, 6, `{"cniVersion":"1.0.0","name":"lan","plugins":[]}`)
	p := s.startProxies()
	s.startDaemons()
	o := &oracle{who: map[netip.Addr]string{}, count: map[string]int{}}
	ctx, cancel := context.WithTimeout(t.Context(), stormTime())
	defer cancel()
	var wg sync.WaitGroup
	var hosts []*stormy
	for _, h := range s.Hosts {
		_, err := h.Run(s.ctx, "ip", "netns", "add", "c")
		must(t, err)
		one := &stormy{Host: h, o: o, has: map[string]netip.Addr{}}
		hosts = append(hosts, one)
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := one.step(s.ctx, s); err != nil {
					t.Errorf("%s: %v", one.Name, err)
					return
				}
			}
		})
	}
	wg.Go(func() { s.disturb(ctx, o) })
	wg.Wait()
	must(t, p.calm())
	last := hosts[5]
	for _, h := range hosts {
		must(t, h.del(s.ctx, len(h.has)))
	}
	const whole = 61 // addresses of the network for containers
	for i := range whole {
		must(t, lab.Until(s.ctx, fmt.Sprintf("one host has %d of %d addresses: none is lost", i+1, whole), func() error { return last.add(s.ctx, "") }))
	}
	late, err := p.end()
	must(t, err)
	for _, d := range o.dups {
		t.Error(d)
	}
	t.Logf("%v; %d duplicates, 0 lost; %d requests took effect after their time", o.count, len(o.dups), late)
	if o.count["ADDs"] < 100 || late == 0 {
		t.Error("too little has happened")
	}
}

func stormTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("FAULTS")); err == nil {
		return d / 3
	}
	if os.Getenv("FAULTS") == "all" {
		return 20 * time.Minute
	}
	return 45 * time.Second
}

// disturb kills and suspends one member at a time.
func (s *story) disturb(ctx context.Context, o *oracle) {
	for i := 0; pause(ctx, 3*time.Second) == nil; i++ {
		h := s.Hosts[rand.IntN(3)]
		var err error
		if i%2 == 0 {
			o.happened("kills of members")
			if err = h.Kill(s.ctx, lab.Etcd); err == nil {
				_ = pause(ctx, time.Second) // then it is started early
				err = h.StartMember(s.ctx)
			}
		} else {
			o.happened("suspended members")
			if err = h.Suspend(s.ctx, lab.Etcd); err == nil {
				_ = pause(ctx, 2*time.Second) // as above
				err = h.Resume(s.ctx, lab.Etcd)
			}
		}
		if err != nil {
			s.t.Error(err)
			return
		}
	}
}
