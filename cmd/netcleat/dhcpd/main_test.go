package dhcpd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	dhcp "github.com/netcleat/netcleat/plugins/dhcp-ipam"
)

// asDaemon makes the test binary be the daemon.
const asDaemon = "NETCLEAT_TEST_DHCP_DAEMON"

func TestMain(m *testing.M) {
	err := error(nil)
	switch {
	case os.Getenv(asDaemon) != "":
		err = Run(context.Background(), os.Args[1:])
	case os.Getenv(knock) != "":
		err = knockAt(os.Getenv(knock))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// lan is a bed with a bridge that the sandboxes and the DHCP server are on.
type lan struct {
	*nltest.Bed
	t      *testing.T
	socket string
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	l := &lan{Bed: nltest.New(t), t: t}
	l.socket = filepath.Join(l.Dir, "run", "dhcp.sock")
	l.IP("link", "add", "br0", "type", "bridge")
	l.IP("addr", "add", "10.77.0.1/16", "dev", "br0")
	l.IP("link", "set", "br0", "up")
	l.plug(l.Path, 0)
	return l
}

// plug gives a sandbox an eth0 on the bridge.
func (l *lan) plug(path string, n int) {
	l.t.Helper()
	host := fmt.Sprintf("veth%d", n)
	l.IP("link", "add", host, "up", "master", "br0", "type", "veth", "peer", "name", "eth0", "netns", path)
}

// call is a call of the plugin in the bed's sandbox.
func (l *lan) call(ipam string) nltest.Call {
	if ipam != "" {
		ipam = "," + ipam
	}
	return nltest.Call{
		Table: plugin.Table{"dhcp": dhcp.Plugin}, Plugin: "dhcp",
		Conf: `{"cniVersion":"1.1.0","name":"lan","type":"bridge","ipam":{"type":"dhcp","daemonSocketPath":"` + l.socket + `"` + ipam + `}}`,
	}
}

// addTo gives the bed's eth0 the address, as a main plugin does.
func (l *lan) addTo(res *current.Result) {
	l.t.Helper()
	l.SandboxIP("addr", "add", res.IPs[0].Address.String(), "dev", "eth0")
	for _, r := range res.Routes {
		if !r.GW.IsUnspecified() {
			l.SandboxIP("route", "add", r.Dst.String(), "via", r.GW.String(), "dev", "eth0")
		}
	}
}

// prog is a running program whose output can be waited for.
type prog struct {
	t    *testing.T
	cmd  *exec.Cmd
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
	done chan struct{}
}

// spawn starts a program in the test's namespace. It dies with the test.
func spawn(t *testing.T, env []string, name string, args ...string) *prog {
	t.Helper()
	p := &prog{t: t, cmd: exec.Command(name, args...), more: make(chan struct{}, 1), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	go func() {
		defer close(p.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.mu.Lock()
			p.text.WriteString(s.Text() + "\n")
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() {
		p.kill(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s:\n%s", name, p.output())
		}
	})
	return p
}

func (p *prog) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// waitFor waits until the output after the first `from` bytes holds text.
func (p *prog) waitFor(text string, from int, within time.Duration) {
	p.t.Helper()
	late := time.After(within)
	for !strings.Contains(p.output()[from:], text) {
		select {
		case <-p.more:
		case <-p.done:
			if !strings.Contains(p.output()[from:], text) {
				p.t.Fatalf("%s ended without saying %q:\n%s", p.cmd.Path, text, p.output())
			}
		case <-late:
			p.t.Fatalf("%s did not say %q within %s:\n%s", p.cmd.Path, text, within, p.output())
		}
	}
}

// kill sends the signal and waits for the end.
func (p *prog) kill(sig syscall.Signal) {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	_ = p.cmd.Wait()
}

// daemon starts the daemon and waits until it listens.
func (l *lan) daemon(flags ...string) *prog {
	l.t.Helper()
	p := l.spawnDaemon(flags...)
	l.listening()
	return p
}

func (l *lan) spawnDaemon(flags ...string) *prog {
	l.t.Helper()
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	p := spawn(l.t, []string{asDaemon + "=1"}, self, append([]string{"-socketpath", l.socket}, flags...)...)
	l.t.Cleanup(func() {
		if out := p.output(); strings.Contains(out, "DATA RACE") || strings.Contains(out, "panic:") {
			l.t.Errorf("daemon:\n%s", out)
		}
	})
	return p
}

// listening waits until somebody listens on the socket.
func (l *lan) listening() {
	l.t.Helper()
	l.eventually(5*time.Second, "daemon listens", func() bool {
		c, err := net.Dial("unix", l.socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// eventually waits until ok holds.
func (l *lan) eventually(within time.Duration, what string, ok func() bool) {
	l.t.Helper()
	for end := time.Now().Add(within); !ok(); {
		if time.Now().After(end) {
			l.t.Fatalf("not within %s: %s", within, what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// dnsmasq starts a server on the bridge.
func (l *lan) dnsmasq(flags ...string) *prog {
	l.t.Helper()
	l.need("dnsmasq")
	p := spawn(l.t, nil, "dnsmasq", append([]string{
		"--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--port=0", "--interface=br0", "--pid-file=", "--user=root",
		"--dhcp-range=10.77.1.1,10.77.200.254,255.255.0.0,120", "--dhcp-option=3,10.77.0.1", "--leasefile-ro",
		"--dhcp-lease-max=20000", "--log-dhcp", "--no-ping", "--dhcp-authoritative",
	}, flags...)...)
	p.waitFor("DHCP, IP range", 0, 5*time.Second)
	return p
}

// need skips the test where a program is missing, unless REQUIRE names it.
func (l *lan) need(name string) string {
	l.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && slices.Contains(strings.Split(os.Getenv("REQUIRE"), ","), filepath.Base(name)) {
		l.t.Fatal(err)
	}
	if err != nil {
		l.t.Skip(err)
	}
	return path
}

// addresses returns the IPv4 addresses of the bed's eth0.
func (l *lan) addresses() (all []string) {
	l.t.Helper()
	var links []struct {
		AddrInfo []struct {
			Local string `json:"local"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(l.SandboxIP("-j", "-4", "addr", "show", "dev", "eth0")), &links); err != nil {
		l.t.Fatal(err)
	}
	for _, link := range links {
		for _, a := range link.AddrInfo {
			all = append(all, a.Local)
		}
	}
	return all
}

// leaseFiles returns the number of lease files, marked ones included.
func (l *lan) leaseFiles() int {
	live, freed, err := dhcp.LeasesOf(l.socket).Files()
	if err != nil {
		l.t.Fatal(err)
	}
	return len(live) + len(freed)
}

// drop ends a sandbox that NewSandbox or the bed made: its last descriptor goes.
func drop(t *testing.T, ns *netns.NS) {
	t.Helper()
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(null, ns.Fd(), unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(null)
}
