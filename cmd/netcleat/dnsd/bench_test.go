package dnsd

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// The network that the benchmarks ask about: so many containers with a name each, so
// many of which share the alias "app".
const (
	crowdSize = 5000
	shared    = 3000
)

// The container that asks.
var asking = named("asking", 2)

// inCrowd is a container that has no interface: nothing asks it.
func inCrowd(i int) on {
	c := on{network: 1, host: 10 + i, id: fmt.Sprintf("c%dx0123456789abcdef", i), args: fmt.Sprint("K8S_POD_NAME=c", i)}
	if i < shared {
		c.aliases = `["app"]`
	}
	return c
}

func addrOfCrowd(i int) string { return fmt.Sprintf("10.1.%d.%d", (10+i)>>8, (10+i)&0xff) }

// contestants are what answers at port 53 of 10.1.0.1.
var contestants = []struct {
	name  string
	start func(testing.TB, *town)
}{
	{"netcleat", func(_ testing.TB, w *town) {
		w.add(asking)
		w.crowd()
	}},
	{"dnsmasq", dnsmasq},
}

// crowd writes the records of many containers, as ADD writes them, and has the daemon
// read them.
func (w *town) crowd() {
	w.t.Helper()
	like, err := w.Journal().Read(w.keyOf(asking))
	must(w.t, err)
	for i := range crowdSize {
		c := inCrowd(i)
		r, st := like, dnsname.State{}
		must(w.t, r.GetState(&st))
		r.Key, r.NetnsID, r.Created = w.keyOf(c), netns.ID{}, time.Now()
		st.Names, st.Aliases, st.Addrs = []string{fmt.Sprint("c", i)}, nil, []netip.Prefix{netip.MustParsePrefix(addrOfCrowd(i) + "/16")}
		if i < shared {
			st.Aliases = []string{"app"}
		}
		r.State, err = json.Marshal(st)
		must(w.t, err)
		text, err := json.Marshal(r)
		must(w.t, err)
		must(w.t, os.WriteFile(filepath.Join(string(w.Journal()), "net1", c.id+":eth0:dnsname"), text, 0o600))
	}
	_, err = dnsname.Ask(w.t.Context(), w.Journal(), "reload")
	must(w.t, err)
	w.want(asks{id: asking.id, name: fmt.Sprint("c", crowdSize-1)}, addrOfCrowd(crowdSize-1))
}

// dnsmasq is the server of podman's plugin, with a file of hosts as that writes it.
func dnsmasq(t testing.TB, w *town) {
	t.Helper()
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		t.Skip("dnsmasq is missing")
	}
	w.call(asking)
	var hosts strings.Builder
	for i := range crowdSize {
		alias := ""
		if i < shared {
			alias = " app"
		}
		fmt.Fprintf(&hosts, "%s\tc%d%s\n", addrOfCrowd(i), i, alias)
	}
	file := filepath.Join(w.Dir, "hosts")
	must(t, os.WriteFile(file, []byte(hosts.String()), 0o644))
	cmd := exec.Command("dnsmasq", "--keep-in-foreground", "--user=root", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file=", "--bind-interfaces", "--listen-address=10.1.0.1", "--addn-hosts="+file)
	must(t, w.Host.Do(cmd.Start))
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	for w.answer(asks{id: asking.id, name: "c1", patience: time.Second}) != addrOfCrowd(1) {
		<-time.After(10 * time.Millisecond)
	}
}

// BenchmarkQuery asks for one name after the other.
func BenchmarkQuery(b *testing.B) {
	inTurns(b, func(i int) string { return fmt.Sprintf("c%d.", i%crowdSize) })
}

// BenchmarkAlias asks for the alias, of whose addresses as many are answered as fit.
func BenchmarkAlias(b *testing.B) {
	inTurns(b, func(int) string { return "app." })
}

// inTurns asks the contestants in turns, some questions each, so that all meet the same
// machine, and reports the medians of the answers' times.
func inTurns(b *testing.B, question func(int) string) {
	b.Helper()
	const turn = 200
	conns, times := make([]net.Conn, len(contestants)), make([][]time.Duration, len(contestants))
	for i, c := range contestants {
		w := newTown(b)
		c.start(b, w)
		conns[i] = w.socket(asking.id)
	}
	b.ResetTimer()
	for first := 0; first < b.N; first += turn {
		for i, conn := range conns {
			for q := first; q < min(first+turn, b.N); q++ {
				times[i] = append(times[i], timed(func() {
					if quick(conn, question(q)) == "silence" {
						b.Fatal("no answer of", contestants[i].name)
					}
				}))
			}
		}
	}
	for i, c := range contestants {
		_ = conns[i].Close()
		b.ReportMetric(float64(median(times[i]).Nanoseconds())/1e3, "µs-"+c.name)
	}
}

// BenchmarkRate asks from eight sockets at once. The asker spends most of the time.
func BenchmarkRate(b *testing.B) {
	for _, c := range contestants {
		b.Run(c.name, func(b *testing.B) {
			w := newTown(b)
			c.start(b, w)
			const sockets = 8
			var all []net.Conn
			for range sockets {
				all = append(all, w.socket(asking.id))
			}
			q, err := new(dns.Msg).SetQuestion("c7.", dns.TypeA).Pack()
			must(b, err)
			b.ResetTimer()
			start := time.Now()
			var wg sync.WaitGroup
			for _, conn := range all {
				wg.Go(func() { pump(b, conn, q, (b.N+sockets-1)/sockets) })
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "queries/s")
			for _, conn := range all {
				_ = conn.Close()
			}
		})
	}
}

// pump sends the same query n times, and waits for each answer.
func pump(b *testing.B, conn net.Conn, q []byte, n int) {
	b.Helper()
	answer := make([]byte, 512)
	for range n {
		if _, err := conn.Write(q); err != nil {
			b.Error(err)
			return
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := conn.Read(answer); err != nil {
			b.Error(err)
			return
		}
	}
}

// BenchmarkADD attaches and detaches a container of a network that has another, by
// processes: the plugin and containers/dnsname in turns, so that both meet the same
// machine. It reports the medians, and those of VERSION: what starting each takes.
func BenchmarkADD(b *testing.B) {
	first, second := named("first", 2), named("second", 3)
	ours := newTown(b)
	ours.buildPlugin()
	ours.add(first)
	mine := ours.call(second)
	theirs := formerTown(b, first)
	other := theirs.call(second)
	var took, tookTheirs, start, startTheirs []time.Duration
	for b.Loop() {
		start = append(start, timed(func() { must(b, ours.process("VERSION", mine)) }))
		startTheirs = append(startTheirs, timed(func() { theirs.former("VERSION", other) }))
		took = append(took, timed(func() { must(b, ours.process(plugin.Add, mine)) }))
		tookTheirs = append(tookTheirs, timed(func() { theirs.former(plugin.Add, other) }))
		must(b, ours.process(plugin.Del, mine))
		theirs.former(plugin.Del, other)
	}
	m, o := median(took), median(tookTheirs)
	b.ReportMetric(median(start).Seconds()*1e3, "ms-ours-VERSION")
	b.ReportMetric(median(startTheirs).Seconds()*1e3, "ms-dnsname-VERSION")
	b.ReportMetric(m.Seconds()*1e3, "ms-ours")
	b.ReportMetric(o.Seconds()*1e3, "ms-dnsname")
	b.ReportMetric(o.Seconds()/m.Seconds(), "times-faster")
}

func timed(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// buildPlugin has process run the plugin as a program of its own.
func (w *town) buildPlugin() {
	w.t.Helper()
	w.program = filepath.Join(w.Dir, "dnsname")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.program, "./testdata/plugin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
}

// BenchmarkBurst adds 500 containers to a network, and reports the longest time in
// which another one's question had no answer.
func BenchmarkBurst(b *testing.B) {
	const burst = 500
	add := map[string]func(*town, nltest.Call){
		"netcleat": func(w *town, c nltest.Call) { must(b, w.process(plugin.Add, c)) },
		"dnsname":  func(w *town, c nltest.Call) { w.former(plugin.Add, c) },
	}
	for _, name := range []string{"netcleat", "dnsname"} {
		b.Run(name, func(b *testing.B) {
			var w *town
			if name == "dnsname" {
				w = formerTown(b, asking)
				w.becomes(asks{id: asking.id, name: "asking"}, "10.1.0.2")
			} else {
				w = newTown(b)
				w.buildPlugin()
				w.add(asking)
			}
			for range b.N {
				stop, longest := make(chan struct{}), make(chan time.Duration)
				go w.watch(w.socket(asking.id), stop, longest)
				for i := range burst {
					add[name](w, w.callOf(inCrowd(i), w.PathOf(w.Sandbox)))
				}
				close(stop)
				b.ReportMetric(float64((<-longest).Microseconds())/1e3, "ms-silence")
			}
		})
	}
}

// watch asks without a pause, and tells the longest time between two answers.
func (w *town) watch(conn net.Conn, stop chan struct{}, longest chan time.Duration) {
	defer func() { _ = conn.Close() }()
	worst, last := time.Duration(0), time.Now()
	for {
		select {
		case <-stop:
			longest <- worst
			return
		default:
		}
		if quick(conn, "asking.") == "10.1.0.2" {
			worst, last = max(worst, time.Since(last)), time.Now()
		}
	}
}

// BenchmarkMemory reports the resident memory of what answers on 300 networks, with a
// container on each.
func BenchmarkMemory(b *testing.B) {
	const networks = 300
	for range b.N {
		w := newTown(b)
		for i := range networks {
			link, net := fmt.Sprint("m", i), fmt.Sprintf("10.%d.%d", 100+i/250, i%250)
			w.Bridge(link, net+".1/24")
			w.Must(plugin.Add, nltest.Call{Table: plugin.Table{"dnsname": w.call(asking).Table["dnsname"]}, Plugin: "dnsname", ContainerID: link, Netns: w.PathOf(w.Sandbox), Conf: fmt.Sprintf(
				`{"cniVersion":"1.0.0","name":"%[1]s","type":"dnsname","domainName":"dns.%[1]s","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"%[1]s"},{"name":"eth0","sandbox":"x"}],
				 "ips":[{"interface":1,"address":"%[2]s.2/24","gateway":"%[2]s.1"}],"routes":[{"dst":"0.0.0.0/0"}]}}`, link, net)})
		}
		b.ReportMetric(float64(resident(b, w.pid()))/1e3, "MB")
	}
}

// resident is a process's resident memory in kB.
func resident(t testing.TB, pid int) (kb int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	_, err = fmt.Sscan(rest, &kb)
	must(t, err)
	return kb
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
	s := crowd(b, shared)
	q, err := new(dns.Msg).SetQuestion("app.", dns.TypeA).SetEdns0(1232, false).Pack()
	must(b, err)
	for b.Loop() {
		s.respond(q, from, via{})
	}
}
