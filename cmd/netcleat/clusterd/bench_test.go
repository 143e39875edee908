package clusterd

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// BenchmarkClaims has 16 hosts claim a block of one network at once, from a real etcd.
func BenchmarkClaims(b *testing.B) {
	const hosts = 16
	endpoints := []string{}
	for _, m := range startEtcd(b) {
		endpoints = append(endpoints, m.client)
	}
	var all []*realHost
	for i := range hosts {
		h := &realHost{name: fmt.Sprint("h", i), leases: map[netip.Addr]string{}}
		all = append(all, h)
		h.start(b, endpoints, io.Discard)
		b.Cleanup(h.crash)
	}
	var took []time.Duration
	for i := range b.N {
		pool := poolNamed(b, fmt.Sprint("net", i), `"subnet":"10.0.0.0/16","blockSize":26`)
		ready := make(chan error, hosts)
		start := time.Now()
		for _, h := range all {
			h.pool = pool
			r := h.r
			r.post(func() {
				h.parts = nil
				if err := r.d.use(pool); err != nil {
					ready <- err
					return
				}
				r.d.ask(pool.Name, &request{any: true, done: func(err error) { ready <- err }})
			})
		}
		for range hosts {
			if err := <-ready; err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op") // of all hosts together: says nothing
	b.ReportMetric(milliseconds(took[len(took)/2]), "median-ms")
	b.ReportMetric(milliseconds(took[len(took)-1]), "slowest-ms")
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// poolNamed is a network of cluster-local.
func poolNamed(tb testing.TB, name, ipam string) *clusterlocal.Pool {
	tb.Helper()
	pool, err := clusterlocal.ReadPool([]byte(`{"cniVersion":"1.0.0","name":"` + name + `","type":"macvlan","ipam":{"type":"cluster-local",` + ipam + `}}`))
	if err != nil {
		tb.Fatal(err)
	}
	return pool
}

// BenchmarkHosts simulates hosts of 256 addresses in blocks of 64, which all start at
// once, and reports what a cluster of that size costs: requests, a daemon's memory, and
// of a real etcd with the same keys its size and the traffic of a watch.
func BenchmarkHosts(b *testing.B) {
	for _, hosts := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			for range b.N {
				growth(b, hosts)
			}
			b.ReportMetric(0, "ns/op") // of a simulation: says nothing
		})
	}
}

func growth(b *testing.B, hosts int) {
	b.Helper()
	s := newSim(b, 1, hosts, `"subnet":"10.0.0.0/13","blockSize":26`)
	s.calm = true
	for i := range 256 {
		for _, h := range s.hosts {
			h.add(fmt.Sprint(h.name, "/", i), netip.Addr{}, 100)
		}
		s.run(s.now + 100)
	}
	s.run(s.now + 20_000)
	if len(s.dups) > 0 || s.adds != 256*hosts {
		b.Fatalf("%d ADDs of %d; duplicates: %v", s.adds, 256*hosts, s.dups)
	}
	b.ReportMetric(float64(s.requests)/float64(hosts), "requests/host")
	b.ReportMetric(float64(s.requests)/float64(max(s.changes, 1)), "requests/change")
	b.ReportMetric(daemonSize(s), "MB/daemon")
	size, watched := etcdSize(b, s)
	b.ReportMetric(size, "MB-etcd")
	b.ReportMetric(watched, "bytes/change-watched")
}

// daemonSize is the memory of a daemon that knows all that the store has.
func daemonSize(s *sim) float64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d := newDaemon(identity{"observer", "1"}, nil, nil, log.New(io.Discard, "", 0))
	d.relist(s.listing())
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(d)
	return float64(after.HeapAlloc-before.HeapAlloc) / 1e6
}

// etcdSize writes the keys to a real etcd, and returns its size and what a watch of
// a change of each slot takes on the wire.
func etcdSize(b *testing.B, s *sim) (megabytes, watched float64) {
	b.Helper()
	m := startMembers(b, 1, "http://")[0]
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{m.client}, Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	if _, err := c.Get(ctx, "/netcleat/"); err != nil {
		b.Fatal(err)
	}
	events := c.Watch(ctx, "/netcleat/", clientv3.WithPrefix())
	for _, k := range s.listing().keys {
		if _, err := c.Put(ctx, "/netcleat/"+k.key, k.value); err != nil {
			b.Fatal(err)
		}
	}
	seen, bytes := 0, 0
	for r := range events {
		for _, e := range r.Events {
			bytes += len(e.Kv.Key) + len(e.Kv.Value)
		}
		if seen += len(r.Events); seen >= len(s.keys) {
			break
		}
	}
	st, err := c.Status(ctx, m.client)
	if err != nil {
		b.Fatal(err)
	}
	return float64(st.DbSize) / 1e6, float64(bytes) / float64(seen)
}
