package dhcpd

import (
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Two hundred containers, each in a namespace of its own, start together.
func TestConcurrentAdds(t *testing.T) {
	const containers = 200
	l := newLAN(t)
	server := l.dnsmasq()
	d := l.daemon()
	sandboxes := make([]*netns.NS, containers)
	for i := range sandboxes {
		sandboxes[i] = l.NewSandbox()
		l.plug(l.PathOf(sandboxes[i]), i+1)
	}
	c := l.call("")
	var mu sync.Mutex
	addresses := map[string]bool{}
	start := time.Now()
	each(containers, func(i int) {
		c := c
		c.ContainerID, c.Netns = fmt.Sprintf("c%d", i), l.PathOf(sandboxes[i])
		a := l.Do(plugin.Add, c)
		if a.Exit != 0 {
			t.Errorf("container %d: %s", i, a.Stdout)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		addresses[addressIn(a.Stdout)] = true
	})
	t.Logf("%d ADDs in %s; daemon: %s", containers, time.Since(start).Round(time.Millisecond), d.usage())
	if len(addresses) != containers {
		t.Errorf("%d containers have %d addresses", containers, len(addresses))
	}
	start = time.Now()
	each(containers, func(i int) {
		c := c
		c.ContainerID, c.Netns = fmt.Sprintf("c%d", i), l.PathOf(sandboxes[i])
		if a := l.Do(plugin.Del, c); a.Exit != 0 {
			t.Errorf("container %d: %s", i, a.Stdout)
		}
	})
	t.Logf("%d DELs in %s", containers, time.Since(start).Round(time.Millisecond))
	l.eventually(2*time.Second, "all released", func() bool {
		out := server.output()
		return strings.Count(out, "DHCPRELEASE(br0)")-strings.Count(out, "unknown lease") == containers
	})
	// No namespace is held: they all go with their last descriptor.
	for _, ns := range sandboxes {
		drop(t, ns)
	}
	l.eventually(10*time.Second, "all namespaces gone", func() bool {
		return strings.Count(l.IP("-o", "link", "show", "type", "veth"), "\n") == 1
	})
}

// A thousand leases cost bounded memory, also after a restart.
func TestThousandLeases(t *testing.T) {
	const leases = 1000
	l := newLAN(t)
	f := l.fake(dhcpv4.WithRouter(net.IP{10, 77, 0, 1}))
	f.set(func() { f.pool = map[string]net.IP{} })
	d := l.daemon()
	t.Logf("empty daemon: %s", d.usage())
	c := l.call(`"provide":[{"option":"host-name","value":"web"}]`)
	start := time.Now()
	gate := make(chan struct{}, 50)
	each(leases, func(i int) {
		gate <- struct{}{}
		defer func() { <-gate }()
		c := c
		c.ContainerID = fmt.Sprintf("c%d", i)
		if a := l.Do(plugin.Add, c); a.Exit != 0 {
			t.Errorf("lease %d: %s", i, a.Stdout)
		}
	})
	t.Logf("%d leases in %s; daemon: %s", leases, time.Since(start).Round(time.Millisecond), d.usage())
	if n := d.status("Threads"); n > 100 {
		t.Errorf("%d threads for %d leases", n, leases)
	}
	if kb := d.status("VmRSS"); kb > 64<<10 && !raceDetector() {
		t.Errorf("%d kB for %d leases", kb, leases)
	}
	d.kill(syscall.SIGKILL)
	d = l.daemon()
	c.ContainerID = "c999"
	l.Must(plugin.Check, c)
	<-time.After(3 * time.Second) // each has looked at its sandbox
	t.Logf("restarted with %d leases; daemon: %s", leases, d.usage())
	if n := l.leaseFiles(); n != leases {
		t.Errorf("%d leases are left", n)
	}
}

// raceDetector reports whether the tests, and so the daemon, are built with -race,
// which multiplies memory.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// each runs fn for 0 to n-1 at the same time.
func each(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() { defer wg.Done(); fn(i) }()
	}
	wg.Wait()
}

// addressIn returns the address of a result.
func addressIn(result string) string {
	_, after, _ := strings.Cut(result, `"address": "`)
	address, _, _ := strings.Cut(after, `"`)
	return address
}

// status returns a number from /proc/PID/status.
func (p *prog) status(key string) int {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(v)[0])
			return n
		}
	}
	p.t.Fatalf("no %s in status", key)
	return 0
}

func (p *prog) usage() string {
	return fmt.Sprintf("%d kB resident (at most %d), %d threads", p.status("VmRSS"), p.status("VmHWM"), p.status("Threads"))
}
