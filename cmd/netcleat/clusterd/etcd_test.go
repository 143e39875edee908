package clusterd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/socket"
	"github.com/netcleat/netcleat/pkg/slot"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
	"github.com/netcleat/netcleat/test/cluster/lab"
)

// member is one etcd of a cluster.
type member struct {
	cmd           *exec.Cmd
	args          []string
	client, peers string
}

func (m *member) start(t testing.TB) {
	t.Helper()
	m.cmd = exec.Command("etcd", m.args...)
	m.cmd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH="+os.Getenv("GOARCH"))
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (m *member) kill() {
	_ = m.cmd.Process.Signal(unix.SIGCONT)
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait() // it was killed
}

// startEtcd starts a cluster of three on the loopback interface.
func startEtcd(t testing.TB) []*member {
	t.Helper()
	return startMembers(t, 3, "http://")
}

// startMembers starts a cluster of etcd with more arguments, the clients of which use
// a scheme.
func startMembers(t testing.TB, n int, scheme string, args ...string) []*member {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("no etcd here: scripts/test-deps installs it")
	}
	var all []*member
	var initial []string
	for i := range n {
		m := &member{client: scheme + freePort(t), peers: "http://" + freePort(t)}
		all = append(all, m)
		initial = append(initial, fmt.Sprintf("m%d=%s", i, m.peers))
	}
	for i, m := range all {
		m.args = []string{
			"--name", fmt.Sprint("m", i), "--data-dir", filepath.Join(t.TempDir(), "data"), "--log-level", "error",
			"--listen-client-urls", m.client, "--advertise-client-urls", m.client, "--listen-peer-urls", m.peers,
			"--initial-advertise-peer-urls", m.peers, "--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new",
			"--unsafe-no-fsync",
		}
		if version, err := exec.Command("etcd", "--version").Output(); err != nil || strings.Contains(string(version), "3.4.") {
			m.args = m.args[:len(m.args)-1] // which 3.4 does not know
		}
		m.args = append(m.args, args...)
		m.start(t)
		t.Cleanup(m.kill)
	}
	return all
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// startProxy starts a proxy that stands between daemons and a member.
func startProxy(t *testing.T, m *member) (*lab.Proxy, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := lab.NewProxy(strings.TrimPrefix(m.client, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.Serve(l) }() // until it is stopped
	t.Cleanup(p.Stop)
	return p, "http://" + l.Addr().String()
}

// realHost is a host whose daemon is a real one, with its files in memory.
type realHost struct {
	mu     sync.Mutex // the lock of the leases
	name   string
	pool   *clusterlocal.Pool
	disk   memory
	parts  slot.Parts
	leases map[netip.Addr]string
	starts int
	r      *runner
	stop   context.CancelFunc
	done   chan struct{}
}

func (h *realHost) load() (memory, error) { return h.disk, nil }
func (h *realHost) save(m memory) error   { h.disk = m; return nil }
func (h *realHost) using(*clusterlocal.Pool) slot.Parts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.parts
}

func (h *realHost) update(p *clusterlocal.Pool, _ slot.Parts, change func(view) slot.Parts) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parts = change(&simView{&simHost{leases: h.leases}, p})
	return nil
}

// start starts a daemon.
func (h *realHost) start(t testing.TB, endpoints []string, out io.Writer) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client, err := dial(ctx, &Settings{Endpoints: endpoints})
	if err != nil {
		t.Fatal(err)
	}
	h.starts++
	r := &runner{life: ctx, calls: make(chan func())}
	store := (&Settings{Endpoints: endpoints, Prefix: "/t/"}).store(ctx, client, r.post)
	r.d = newDaemon(identity{h.name, fmt.Sprintf("%s-%d", h.name, h.starts)}, store, h, log.New(out, h.name+": ", log.Lmicroseconds))
	if h.pool != nil {
		if err := r.d.use(h.pool); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.d.begin(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	h.r, h.stop, h.done = r, cancel, done
	go store.watch(r.d)
	go func() {
		_ = r.loop()
		_ = client.Close()
		close(done)
	}()
}

func (h *realHost) crash() {
	h.stop()
	<-h.done
}

// truth is who has an address, of all hosts.
type truth struct {
	mu   sync.Mutex
	who  map[netip.Addr]string
	dups []string
	adds int
	// Of the ADDs, those that asked for an address; boots, and releases by an operator.
	asked, boots, releases int
}

// count counts something.
func (o *truth) count(what *int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	*what++
}

func (o *truth) take(a netip.Addr, id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if had := o.who[a]; had != "" {
		o.dups = append(o.dups, fmt.Sprintf("%s has %s, and %s gets it", had, a, id))
	}
	o.who[a] = id
	o.adds++
}

func (o *truth) give(a netip.Addr, id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.who[a] == id {
		delete(o.who, a)
	}
}

var errNone = errors.New("no address")

// add is an ADD, which asks for an address where want is valid.
func (h *realHost) add(o *truth, id string, want netip.Addr, patience time.Duration) error {
	until := time.Now().Add(patience)
	for time.Now().Before(until) {
		if h.try(o, id, want) {
			return nil
		}
		answered := make(chan error, 1)
		req := &request{any: !want.IsValid(), done: func(err error) { answered <- err }}
		if want.IsValid() {
			p, _ := h.pool.Find(want)
			req.want = []slot.Part{p}
		}
		r := h.r
		r.post(func() { r.d.ask(h.pool.Name, req) })
		select {
		case err := <-answered:
			if err != nil {
				return err
			}
		case <-time.After(time.Until(until)):
			r.post(func() { r.d.forget(h.pool.Name, req) })
		case <-r.life.Done():
			return errNone
		}
	}
	return errNone
}

func (h *realHost) try(o *truth, id string, want netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.pool.Usable(0, h.parts).Ranges() {
		for a := r.First; !r.Last.Less(a); a = a.Next() {
			if a != r.Gateway && h.leases[a] == "" && (!want.IsValid() || a == want) {
				h.leases[a] = id
				o.take(a, id)
				if want.IsValid() {
					o.count(&o.asked)
				}
				return true
			}
		}
	}
	return false
}

func (h *realHost) del(o *truth, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for a, id := range h.leases {
		o.give(a, id)
		delete(h.leases, a)
		if !all {
			return
		}
	}
}

// chaosTime is how long the test with a real etcd disturbs it.
func chaosTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("FAULTS")); err == nil {
		return d
	}
	if os.Getenv("FAULTS") == "all" {
		return time.Hour
	}
	return time.Minute
}

// TestRealEtcd lets six daemons share a small network over three members of etcd,
// which are killed, stopped and compacted, behind a proxy that delays, drops, repeats
// and reorders requests.
func TestRealEtcd(t *testing.T) {
	members := startEtcd(t)
	var endpoints []string
	var proxies []*lab.Proxy
	for _, m := range members {
		p, url := startProxy(t, m)
		proxies, endpoints = append(proxies, p), append(endpoints, url)
	}
	out := io.Discard
	if os.Getenv("SIM_LOG") != "" {
		out = os.Stderr
	}
	o := &truth{who: map[netip.Addr]string{}}
	var hosts []*realHost
	for i := range 6 {
		h := &realHost{name: fmt.Sprint("h", i), pool: poolNamed(t, "lan", `"subnet":"10.0.0.0/26"`), leases: map[netip.Addr]string{}}
		hosts = append(hosts, h)
		h.start(t, endpoints, out)
		t.Cleanup(func() { h.crash() })
	}
	ctx, cancel := context.WithTimeout(t.Context(), chaosTime())
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range hosts {
		wg.Go(func() { h.live(ctx, t, o, endpoints, out) })
	}
	wg.Go(func() { disturb(ctx, t, members) })
	wg.Wait()
	var late int64
	for _, p := range proxies {
		p.Calm.Store(true)
		late += p.Late.Load()
	}
	for _, d := range o.dups {
		t.Error(d)
	}
	t.Logf("%d ADDs, %d of them asked for an address; %d duplicates; %d boots, %d releases; %d requests took effect after their time", o.adds, o.asked, len(o.dups), o.boots, o.releases, late)
	if o.adds < 100 || late < 10 || o.asked == 0 || o.boots == 0 || o.releases == 0 {
		t.Error("too little has happened")
	}
	for _, h := range hosts {
		h.del(o, true)
	}
	// All addresses can be had from one host: none is lost.
	for i := range 61 { // but network, broadcast and gateway
		if err := hosts[0].add(o, fmt.Sprint("last ", i), netip.Addr{}, time.Minute); err != nil {
			t.Fatalf("address %d of 61: %v", i, err)
		}
	}
	t.Logf("all 61 addresses could be had from one host: none is lost")
	for _, d := range o.dups {
		t.Error(d)
	}
}

// live adds and deletes containers, and crashes and suspends the daemon.
func (h *realHost) live(ctx context.Context, t *testing.T, o *truth, endpoints []string, out io.Writer) {
	t.Helper()
	for i := 0; ctx.Err() == nil; i++ {
		switch n := rand.IntN(40); {
		case n == 0:
			h.crash()
			h.start(t, endpoints, out)
		case n == 1:
			h.boot(o)
			h.start(t, endpoints, out)
		case n == 2 && i%4 == 0:
			h.boot(o)
			h.releaseBy(t, o, endpoints)
			h.start(t, endpoints, out)
		case n == 3:
			hold := time.Duration(rand.IntN(6000)) * time.Millisecond
			h.r.post(func() { _ = socket.Pause(ctx, hold) })
		case n < 7:
			want := netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + rand.IntN(60))})
			_ = h.add(o, fmt.Sprintf("%s/%d", h.name, i), want, 3*time.Second) // or not
		case n < 22 && len(h.leases) < 9:
			_ = h.add(o, fmt.Sprintf("%s/%d", h.name, i), netip.Addr{}, 3*time.Second) // or not
		default:
			h.del(o, false)
		}
		_ = socket.Pause(ctx, time.Duration(rand.IntN(60))*time.Millisecond) // the loop ends
	}
}

// boot crashes the host: its containers and what is in /run no longer exist.
func (h *realHost) boot(o *truth) {
	h.crash()
	h.del(o, true)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parts = nil
	o.count(&o.boots)
}

// releaseBy has an operator release the host, which is off. He repeats the command
// until it succeeds, also when the trouble has ended meanwhile.
func (h *realHost) releaseBy(t *testing.T, o *truth, endpoints []string) {
	t.Helper()
	for t.Context().Err() == nil {
		if _, err := ReleaseHost(t.Context(), &Settings{Endpoints: endpoints, Prefix: "/t/"}, h.name); err == nil {
			o.count(&o.releases)
			return
		}
	}
}

// disturb kills and stops one member at a time, and compacts.
func disturb(ctx context.Context, t *testing.T, members []*member) {
	t.Helper()
	for i := 0; socket.Pause(ctx, 3*time.Second) == nil; i++ {
		m := members[rand.IntN(len(members))]
		if i%2 == 0 {
			m.kill()
			_ = socket.Pause(ctx, time.Second) // then it is started early
			m.start(t)
		} else {
			_ = m.cmd.Process.Signal(unix.SIGSTOP)
			_ = socket.Pause(ctx, 2*time.Second) // as above
			_ = m.cmd.Process.Signal(unix.SIGCONT)
		}
		compact(ctx, members[rand.IntN(len(members))])
	}
}

func compact(ctx context.Context, m *member) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{m.client}, Logger: quiet()})
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	if r, err := c.Get(ctx, "/t/"); err == nil {
		_, _ = c.Compact(ctx, r.Header.Revision) // the next time
	}
}
