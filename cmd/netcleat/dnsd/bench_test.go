package dnsd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// crowdSize is how many containers share the alias that the benchmarks ask for,
// each with a name of its own.
const crowdSize = 200

// servers are what answers at port 53 of 10.1.0.1.
var contestants = []struct {
	name  string
	start func(testing.TB, *town)
}{
	{"netcleat", func(_ testing.TB, w *town) {
		for i := range crowdSize {
			w.add(named(fmt.Sprint("c", i), 2+i))
		}
	}},
	{"dnsmasq", dnsmasq},
}

// dnsmasq is the plugin of podman's server, with a file of hosts as it writes it.
func dnsmasq(t testing.TB, w *town) {
	t.Helper()
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		t.Skip("dnsmasq is missing")
	}
	var hosts strings.Builder
	for i := range crowdSize {
		c := named(fmt.Sprint("c", i), 2+i)
		w.call(c)
		fmt.Fprintf(&hosts, "10.1.0.%d c%d c%d.dns.test\n", 2+i, i, i)
	}
	file := filepath.Join(w.Dir, "hosts")
	must(t, os.WriteFile(file, []byte(hosts.String()), 0o644))
	cmd := exec.Command("dnsmasq", "--keep-in-foreground", "--user=root", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file=", "--bind-interfaces", "--listen-address=10.1.0.1", "--addn-hosts="+file)
	must(t, cmd.Start())
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	for w.answer(asks{id: named("c0", 2).id, name: "c1", patience: time.Second}) != "10.1.0.3" {
		<-time.After(10 * time.Millisecond)
	}
}

// BenchmarkQuery asks one question after the other, and reports the median.
func BenchmarkQuery(b *testing.B) {
	for _, c := range contestants {
		b.Run(c.name, func(b *testing.B) {
			w := newTown(b)
			c.start(b, w)
			conn := w.socket(named("c0", 2).id)
			defer func() { _ = conn.Close() }()
			times := make([]time.Duration, 0, b.N)
			b.ResetTimer()
			for i := range b.N {
				start := time.Now()
				if got := quick(conn, fmt.Sprintf("c%d.", i%crowdSize)); got == "silence" {
					b.Fatal("no answer")
				}
				times = append(times, time.Since(start))
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "µs-median")
		})
	}
}

// BenchmarkRate asks from eight sockets at once.
func BenchmarkRate(b *testing.B) {
	for _, c := range contestants {
		b.Run(c.name, func(b *testing.B) {
			w := newTown(b)
			c.start(b, w)
			const sockets = 8
			var all []net.Conn
			for i := range sockets {
				all = append(all, w.socket(named(fmt.Sprint("c", i), 2+i).id))
			}
			b.ResetTimer()
			start := time.Now()
			var wg sync.WaitGroup
			for _, conn := range all {
				wg.Go(func() {
					for i := range (b.N + sockets - 1) / sockets {
						quick(conn, fmt.Sprintf("c%d.", i%crowdSize))
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "queries/s")
			for _, conn := range all {
				_ = conn.Close()
			}
		})
	}
}

// BenchmarkADD attaches and detaches a container of a network that has others, by
// processes.
func BenchmarkADD(b *testing.B) {
	w := newTown(b)
	w.add(named("first", 2))
	second := w.call(named("second", 3))
	for b.Loop() {
		must(b, w.process(plugin.Add, second))
		b.StopTimer()
		must(b, w.process(plugin.Del, second))
		b.StartTimer()
	}
}

// socket is a container's, connected to the server.
func (w *town) socket(id string) (conn net.Conn) {
	w.t.Helper()
	w.In(w.sandbox[id], func() {
		var err error
		conn, err = net.Dial("udp", "10.1.0.1:53")
		must(w.t, err)
	})
	return conn
}

// BenchmarkLargeAnswer writes the answer of an alias of three thousand containers,
// as much as fits.
func BenchmarkLargeAnswer(b *testing.B) {
	s := crowd(b, 3000)
	q, err := new(dns.Msg).SetQuestion("app.", dns.TypeA).SetEdns0(1232, false).Pack()
	must(b, err)
	for b.Loop() {
		s.respond(q, from, via{})
	}
}
