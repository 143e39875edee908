package bridge

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// burst runs the verb for all calls at the same time, each as a process of its
// own would, and fails the test where one fails.
func burst(t *testing.T, bed *nltest.Bed, verb string, calls []nltest.Call) {
	t.Helper()
	var all sync.WaitGroup
	for _, c := range calls {
		all.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends here
			if err := unix.Setns(bed.Host.Fd(), unix.CLONE_NEWNET); err != nil {
				t.Error(err)
				return
			}
			if a := bed.Do(verb, c); a.Exit != 0 {
				t.Errorf("%s of %s: %s", verb, c.ContainerID, a.Stdout)
			}
		})
	}
	all.Wait()
}

// Sixteen containers come and go at once on a bridge that the first of them has
// to make, with the network's rules and the gateway's address.
func TestBurst(t *testing.T) {
	const n = 16
	bed := nltest.New(t)
	var calls []nltest.Call
	for i := range n {
		addr := fmt.Sprintf("10.1.0.%d/16 10.1.0.1", i+2)
		c := call(&nltest.StubIPAM{Addresses: []string{addr, fmt.Sprintf("fd00:1::%x/64 fd00:1::1", i+2)}}, `"isDefaultGateway":true,"ipMasq":true,"macspoofchk":true`)
		c.ContainerID, c.Netns = fmt.Sprint("c", i), bed.PathOf(bed.NewSandbox())
		calls = append(calls, c)
	}
	for range 2 {
		burst(t, bed, plugin.Add, calls)
		for i := range n {
			if !pingFrom(bed, bed.Host, fmt.Sprintf("10.1.0.%d", i+2)) {
				t.Errorf("container %d does not answer", i)
			}
		}
		if v := strings.TrimSpace(bed.Run("cat", "/proc/sys/net/ipv6/conf/br0/accept_ra")); v != "0" {
			t.Errorf("bridge has accept_ra=%s", v)
		}
		burst(t, bed, plugin.Del, calls)
		left := bed.IP("-br", "link", "show", "type", "veth") + bed.Run("nft", "list", "ruleset")
		if left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	}
	if records, err := bed.Journal().Network("net"); len(records) > 0 || err != nil {
		t.Errorf("journal: %v %v", records, err)
	}
}

// The same ADD sixteen times at once attaches once, and the same DEL detaches.
func TestSameCallAtOnce(t *testing.T) {
	bed := nltest.New(t)
	c := call(dualStack(), `"isGateway":true`)
	var done, refused int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			runtime.LockOSThread()
			if err := unix.Setns(bed.Host.Fd(), unix.CLONE_NEWNET); err != nil {
				t.Error(err)
				return
			}
			code, _ := bed.Do(plugin.Add, c).Error()
			mu.Lock()
			defer mu.Unlock()
			switch code {
			case 0:
				done++
			case 100:
				refused++
			default:
				t.Errorf("code %d", code)
			}
		})
	}
	all.Wait()
	if done != 1 || refused != 15 {
		t.Errorf("%d attached, %d refused", done, refused)
	}
	pings(t, bed, dualStack())
	burst(t, bed, plugin.Del, []nltest.Call{c, c, c, c})
	if left := bed.IP("-br", "link", "show", "type", "veth"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}
