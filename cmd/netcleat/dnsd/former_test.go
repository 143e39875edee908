package dnsd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// formerPlugin is where Debian installs containers/dnsname.
const formerPlugin = "/usr/lib/cni/dnsname"

// formerTown is a host on which containers/dnsname has attached containers.
func formerTown(t testing.TB, all ...on) *town {
	t.Helper()
	w := newTown(t)
	if _, err := os.Stat(formerPlugin); err != nil {
		t.Skip("containers/dnsname is missing: make install-deps")
	}
	t.Setenv("XDG_RUNTIME_DIR", w.Dir) // it has its files there, as if the records were in /run
	t.Cleanup(func() {
		if pid := w.dnsmasq(); pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
	for _, c := range all {
		w.former(plugin.Add, w.call(c))
	}
	return w
}

// former calls containers/dnsname.
func (w *town) former(verb string, c nltest.Call) {
	w.t.Helper()
	cmd := &exec.Cmd{Path: formerPlugin, Args: []string{"dnsname"}, Stdin: strings.NewReader(c.Conf), WaitDelay: time.Second}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+c.ContainerID, "CNI_IFNAME=eth0", "CNI_NETNS="+c.Netns, "CNI_ARGS="+c.Args, "CNI_PATH=/usr/lib/cni")
	if err := w.Host.Do(cmd.Run); err != nil {
		w.t.Fatalf("containers/dnsname: %v: %s", err, &out)
	}
}

func (w *town) formerFile(name string) string {
	return filepath.Join(w.Dir, "containers/cni/dnsname/net1", name)
}

// dnsmasq is the process of containers/dnsname; 0 is none.
func (w *town) dnsmasq() (pid int) {
	b, _ := os.ReadFile(w.formerFile("pidfile"))
	_, _ = fmt.Sscan(string(b), &pid)
	if unix.Kill(pid, 0) != nil {
		return 0
	}
	return pid
}

// becomes waits for an answer that comes with the next signal.
func (w *town) becomes(q asks, want string) {
	w.t.Helper()
	q.patience = time.Second
	got := ""
	for range 100 {
		if got = w.answer(q); got == want {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	w.t.Errorf("%+v: want %q, got %q", q, want, got)
}

// TestSucceeds: a network that containers/dnsname has served goes on: the first ADD ends
// its dnsmasq, the names of its containers are answered until their DEL, also by the
// next daemon, and the last DEL removes its directory.
func TestSucceeds(t *testing.T) {
	first, second, mine := named("first", 2), named("second", 3), named("mine", 4)
	second.aliases = `["app"]`
	mine.aliases = `["app"]`
	w := formerTown(t, first, second)
	w.becomes(asks{id: first.id, name: "second"}, "10.1.0.3")
	if w.dnsmasq() == 0 {
		t.Fatal("no dnsmasq runs")
	}
	w.add(mine)
	if pid := w.dnsmasq(); pid != 0 {
		t.Errorf("dnsmasq still runs: %d", pid)
	}
	both := func() {
		t.Helper()
		if got := sorted(w.answer(asks{id: mine.id, name: "app"})); got != "10.1.0.3 10.1.0.4" {
			t.Errorf("shared alias: %s", got)
		}
		w.want(asks{id: first.id, name: "mine"}, "10.1.0.4")
		w.want(asks{id: mine.id, name: "first.dns.test"}, "10.1.0.2")
		w.want(asks{id: first.id, name: "www.example.com"}, "REFUSED") // whether it has a way out is not known
	}
	both()
	w.kill()
	other := named("other", 5)
	w.add(other)
	both()
	w.Must(plugin.Del, w.call(first))
	w.want(asks{id: mine.id, name: "first"}, "NXDOMAIN")
	w.Must(plugin.Del, w.call(mine))
	w.Must(plugin.Del, w.call(other))
	w.want(asks{id: second.id, name: "app"}, "10.1.0.3")
	w.Must(plugin.Check, w.call(second))
	w.Must(plugin.Del, w.call(second))
	if _, err := os.Stat(w.formerFile("")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is left: %v", err)
	}
}

// TestFormerDEL: DEL of a container that containers/dnsname attached takes its name from
// the dnsmasq that runs, and the last one ends it.
func TestFormerDEL(t *testing.T) {
	first, second := named("first", 2), named("second", 3)
	w := formerTown(t, first, second)
	w.becomes(asks{id: second.id, name: "first"}, "10.1.0.2")
	w.Must(plugin.Del, w.call(first))
	w.becomes(asks{id: second.id, name: "first.dns.test"}, "NXDOMAIN")
	w.want(asks{id: second.id, name: "second"}, "10.1.0.3")
	w.Must(plugin.Del, w.call(second))
	if pid := w.dnsmasq(); pid != 0 {
		t.Errorf("dnsmasq still runs: %d", pid)
	}
	if _, err := os.Stat(w.formerFile("")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is left: %v", err)
	}
	w.Must(plugin.Del, w.call(second))
}

// TestSuccessionNoTrace refuses each change of the ADD that takes over, in turn: the
// names of before are answered, and all files are as before but for the PID of the
// dnsmasq that was started again. Where a daemon runs, it answers in dnsmasq's place.
func TestSuccessionNoTrace(t *testing.T) {
	for name, prepare := range map[string]func(*town){
		"no daemon runs": func(*town) {},
		"a daemon runs": func(w *town) {
			w.network(2)
			other := named("other", 2)
			other.network = 2
			w.add(other)
		},
	} {
		for at, hit := 1, true; hit && !t.Failed(); at++ {
			hit = false
			t.Run(fmt.Sprintf("%s, refuse change %d", name, at), func(t *testing.T) { hit = refuseSuccession(t, at, prepare) })
		}
	}
}

func refuseSuccession(t *testing.T, at int, prepare func(*town)) (hit bool) {
	t.Helper()
	first, mine := named("first", 2), named("mine", 4)
	w := formerTown(t, first)
	w.Run("iptables", "-P", "INPUT", "DROP") // so that the firewall is one of the changes
	prepare(w)
	w.becomes(asks{id: first.id, name: "first"}, "10.1.0.2")
	faults := &nltest.Faults{At: at}
	c := w.call(mine)
	c.Gate = faults.Gate
	before := w.withoutProcesses()
	a := w.Do(plugin.Add, c)
	switch {
	case !faults.Hit() && a.Exit != 0:
		t.Errorf("no fault left to inject, yet: %s", a.Stdout)
	case !faults.Hit():
		w.want(asks{id: mine.id, name: "first"}, "10.1.0.2")
	case a.Exit == 0:
		t.Errorf("change %d (%s) was refused, and ADD succeeded", at, faults.What)
	default:
		w.becomes(asks{id: first.id, name: "first"}, "10.1.0.2")
		if diff := cmp.Diff(before, w.withoutProcesses()); diff != "" {
			t.Errorf("change %d (%s): %s\nleft behind (-before +after):\n%s", at, faults.What, a.Stdout, diff)
		}
	}
	return faults.Hit()
}

// counts are those of the rule that containers/dnsname made for its queries.
var counts = regexp.MustCompile(`packets \d+ bytes \d+`)

// withoutProcesses is a snapshot without the files that differ from process to process,
// dnsmasq's PID file and the daemon's lock and log, and without counts.
func (w *town) withoutProcesses() string {
	lines := strings.SplitAfter(counts.ReplaceAllString(w.Snapshot(), ""), "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool {
		return strings.Contains(l, "/net1/pidfile: ") || strings.Contains(l, "/journal/.dns.l")
	}), "")
}

// TestStranger: a process that has the number in the PID file and is not the network's
// dnsmasq is left alone.
func TestStranger(t *testing.T) {
	w := newTown(t)
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	must(t, cmd.Start())
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	must(t, os.MkdirAll(w.formerFile(""), 0o755))
	must(t, os.WriteFile(w.formerFile("pidfile"), []byte(fmt.Sprint(cmd.Process.Pid)), 0o644))
	must(t, os.WriteFile(w.formerFile("addnhosts"), []byte("10.1.0.9\told\n"), 0o644))
	must(t, os.WriteFile(w.formerFile("dnsmasq.conf"), []byte("interface=br1\ndomain=dns.test\n"), 0o644))
	mine := named("mine", 4)
	w.add(mine)
	w.want(asks{id: mine.id, name: "old"}, "10.1.0.9")
	if err := unix.Kill(cmd.Process.Pid, 0); err != nil {
		t.Errorf("the process was ended: %v", err)
	}
}
