package dnsd

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/command"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// The test binary is also the program that the plugin starts, which leaves the
// machine's cgroups alone, and the plugin.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == command.Name {
		if err := Run(context.Background(), Options{Journal: journal.Dir(os.Args[len(os.Args)-1]), OnDemand: os.Getenv("TEST_ACTIVATED") == "", Cgroups: os.DevNull}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if filepath.Base(os.Args[0]) == dnsname.Name {
		p := plugin.Process{Name: dnsname.Name, Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Journal: journal.Dir(os.Getenv("TEST_JOURNAL"))}
		os.Exit(p.Run(context.Background(), plugin.Table{dnsname.Name: &dnsname.Plugin}))
	}
	os.Exit(withCommand(m.Run))
}

// withCommand runs fn with a PATH on which the command is.
func withCommand(fn func() int) int {
	dir, err := os.MkdirTemp("", "dnsd")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// The benchmarks measure the program itself.
	self := os.Getenv("NETCLEAT")
	if self == "" {
		if self, err = os.Executable(); err != nil {
			panic(err)
		}
	}
	if err := os.Symlink(self, filepath.Join(dir, command.Name)); err != nil {
		panic(err)
	}
	if err := os.Setenv("PATH", dir+":"+os.Getenv("PATH")); err != nil {
		panic(err)
	}
	return fn()
}

// town is a host with networks, bridges of the same name, and containers on them.
type town struct {
	*nltest.Bed
	t        testing.TB
	sandbox  map[string]*netns.NS
	upstream string // more of the configuration
	program  string // the plugin's; "" is the test binary
}

func newTown(t testing.TB) *town {
	t.Helper()
	w := &town{Bed: nltest.New(t), t: t, sandbox: map[string]*netns.NS{}}
	w.network(1)
	t.Cleanup(w.stop)
	return w
}

// network makes network n: bridge br1 with 10.1.0.1 and fd01::1.
func (w *town) network(n int) {
	w.t.Helper()
	br := fmt.Sprintf("br%d", n)
	w.Bridge(br, fmt.Sprintf("10.%d.0.1/16", n), fmt.Sprintf("fd0%d::1/64", n))
	// One of its own, as the bridge plugin gives it: otherwise it has that of a port.
	w.IP("link", "set", br, "address", fmt.Sprintf("02:00:00:00:00:0%d", n))
}

// stop ends the daemon, if there is one.
func (w *town) stop() {
	if pid := w.pid(); pid > 1 {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// pid is the daemon's.
func (w *town) pid() (pid int) {
	b, _ := os.ReadFile(filepath.Join(string(w.Journal()), ".dns.lock"))
	_, _ = fmt.Sscan(string(b), &pid)
	return pid
}

// kill ends the daemon as by accident, and waits until it has ended.
func (w *town) kill() {
	w.t.Helper()
	fd, err := unix.PidfdOpen(w.pid(), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	must(w.t, unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000)
	must(w.t, err)
	must(w.t, unix.Close(fd))
}

// on says how a container is on a network.
type on struct {
	network, host int
	id            string
	args          string // CNI_ARGS
	aliases       string // as a JSON list
	internal      bool
	more          string // more of the configuration
}

// call plugs the container in, unless it is, and returns its call of the plugin.
func (w *town) call(c on) nltest.Call {
	w.t.Helper()
	if w.sandbox[c.id] == nil {
		w.sandbox[c.id] = w.NewSandbox()
		v4, v6 := fmt.Sprintf("10.%d.0.%d/16", c.network, c.host), fmt.Sprintf("fd0%d::%x/64", c.network, c.host)
		w.Plug(w.sandbox[c.id], fmt.Sprintf("v%d-%d", c.network, c.host), fmt.Sprintf("br%d", c.network), v4, v6)
	}
	return w.callOf(c, w.PathOf(w.sandbox[c.id]))
}

func (w *town) callOf(c on, path string) nltest.Call {
	routes := `,"routes":[{"dst":"0.0.0.0/0"}]`
	if c.internal {
		routes = ""
	}
	if c.aliases == "" {
		c.aliases = "[]"
	}
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net%[1]d","type":"dnsname","domainName":"dns.test"%[3]s%[4]s,"runtimeConfig":{"aliases":{"net%[1]d":%[5]s}},
	 "prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"br%[1]d"},{"name":"eth0","sandbox":"%[6]s"}],
	 "ips":[{"interface":1,"address":"10.%[1]d.%[8]d.%[9]d/16","gateway":"10.%[1]d.0.1"},{"interface":1,"address":"fd0%[1]d::%[2]x/64","gateway":"fd0%[1]d::1"}]%[7]s}}`,
		c.network, c.host, w.upstream, c.more, c.aliases, path, routes, c.host>>8, c.host&0xff)
	return nltest.Call{Table: plugin.Table{dnsname.Name: dnsname.Plugin}, Plugin: dnsname.Name, ContainerID: c.id, Netns: path, Conf: conf, Args: c.args}
}

// named is a container with a name on network 1.
func named(name string, host int) on {
	return on{network: 1, host: host, id: name + "0123456789abcdef", args: "IgnoreUnknown=1;K8S_POD_NAME=" + name}
}

// add attaches the container.
func (w *town) add(c on) { w.t.Helper(); w.Must(plugin.Add, w.call(c)) }

// asks is a question.
type asks struct {
	id     string // the asking container, or "" for the host
	server string
	name   string
	qtype  uint16
	tcp    bool
	edns   uint16

	patience time.Duration
}

// ask asks and returns the answer; nil is none in time.
func (w *town) ask(q asks) (m *dns.Msg) {
	w.t.Helper()
	ns := w.Host
	if q.id != "" {
		ns = w.sandbox[q.id]
	}
	if q.server == "" {
		q.server = "10.1.0.1"
	}
	if q.qtype == 0 {
		q.qtype = dns.TypeA
	}
	msg := new(dns.Msg).SetQuestion(dns.Fqdn(q.name), q.qtype)
	if q.edns > 0 {
		msg.SetEdns0(q.edns, false)
	}
	c := dns.Client{Net: "udp", Timeout: cmp.Or(q.patience, 5*time.Second), UDPSize: 4096}
	if q.tcp {
		c.Net = "tcp"
	}
	var conn *dns.Conn
	var err error
	w.In(ns, func() { conn, err = c.Dial(net.JoinHostPort(q.server, "53")) })
	if err != nil {
		return nil
	}
	defer func() { _ = conn.Close() }()
	m, _, err = c.ExchangeWithConn(msg, conn)
	if err != nil {
		return nil
	}
	return m
}

// answer is the answer in short: the records' data, or else the code.
func (w *town) answer(q asks) string {
	w.t.Helper()
	return short(w.ask(q))
}

func short(m *dns.Msg) string {
	if m == nil {
		return "silence"
	}
	var all []string
	for _, r := range m.Answer {
		all = append(all, strings.TrimPrefix(r.String(), r.Header().String()))
	}
	switch {
	case m.Rcode != dns.RcodeSuccess:
		return dns.RcodeToString[m.Rcode]
	case len(all) == 0:
		return "NODATA"
	}
	return strings.Join(all, " ")
}

func (w *town) want(q asks, want string) {
	w.t.Helper()
	if got := w.answer(q); got != want {
		w.t.Errorf("%+v: want %q, got %q", q, want, got)
	}
}

// sorted is the words of an answer in order.
func sorted(answer string) string {
	words := strings.Fields(answer)
	slices.Sort(words)
	return strings.Join(words, " ")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fakeServer is an upstream server that counts what it is asked.
type fakeServer struct {
	mu    sync.Mutex
	asked []string
}

// serve starts it on the host at the address; answer says what it answers.
func (w *town) serve(at string, answer func(*dns.Msg, string) *dns.Msg) *fakeServer {
	w.t.Helper()
	f := &fakeServer{}
	w.In(w.Host, func() {
		p, err := net.ListenPacket("udp", at)
		must(w.t, err)
		l, err := net.Listen("tcp", at)
		must(w.t, err)
		for _, s := range []*dns.Server{{PacketConn: p}, {Listener: l}} {
			network := "udp"
			if s.Listener != nil {
				network = "tcp"
			}
			s.Handler = dns.HandlerFunc(func(out dns.ResponseWriter, q *dns.Msg) {
				f.mu.Lock()
				f.asked = append(f.asked, network+" "+q.Question[0].Name)
				f.mu.Unlock()
				if m := answer(q, network); m != nil {
					_ = out.WriteMsg(m)
				}
			})
			go func() { _ = s.ActivateAndServe() }()
			w.t.Cleanup(func() { _ = s.Shutdown() })
		}
	})
	return f
}

func (f *fakeServer) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// fixed answers each question with one address.
func fixed(addr string) func(*dns.Msg, string) *dns.Msg {
	return func(q *dns.Msg, _ string) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Answer = append(m.Answer, record(dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, netip.MustParseAddr(addr)))
		return m
	}
}

// keyOf is the container's attachment.
func (w *town) keyOf(c on) journal.Key {
	return journal.Key{Network: fmt.Sprint("net", c.network), ContainerID: c.id, IfName: "eth0", Plugin: dnsname.Name}
}
