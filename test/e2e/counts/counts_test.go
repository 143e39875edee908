// Package counts keeps the golden numbers of what an attachment costs: processes,
// netlink requests, changes to files and files opened, by plugin. Unlike times
// they are the same on every machine, and unlike times they may be tested.
package counts

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// lists are the cases: what the benchmark measures, one plugin after the other.
var lists = map[string][]string{
	"bridge": {`{"type": "bridge", "bridge": "br0", "isGateway": true, ` + ipam4 + `}`},
	"bridge, ipMasq": {
		`{"type": "bridge", "bridge": "br1", "isGateway": true, "ipMasq": true, ` + ipam4 + `}`,
	},
	"bridge, dual stack": {`{"type": "bridge", "bridge": "br2", "isGateway": true, ` + ipam46 + `}`},
	"nerdctl, one port": {
		`{"type": "bridge", "bridge": "br3", "isGateway": true, "ipMasq": true, "hairpinMode": true, ` + ipam4 + `}`,
		`{"type": "portmap", "runtimeConfig": {"portMappings": [{"hostPort": PORT, "containerPort": 80, "protocol": "tcp"}]}}`,
		`{"type": "firewall", "ingressPolicy": "same-bridge"}`,
		`{"type": "tuning"}`,
	},
	"ptp, dual stack":     {`{"type": "ptp", ` + ipam46 + `}`},
	"macvlan, dual stack": {`{"type": "macvlan", "master": "lan0", ` + ipam46 + `}`},
	"host-local":          {`{"type": "host-local", ` + ipam4 + `}`},
	"portmap, nothing":    {`{"type": "portmap", "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/16"}]}}`},
}

const (
	ipam4  = `"ipam": {"type": "host-local", "subnet": "10.9.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}`
	ipam46 = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/16"}], [{"subnet": "fd09::/64"}]], ` +
		`"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`
)

// few and many are how many containers a network has already: what one more costs
// must not depend on that.
const few, many = 2, 20

// TestCounts compares the numbers with those in testdata, which UPDATE=1 rewrites,
// and those of a network with few containers with those of one with many.
func TestCounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: it makes network namespaces")
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%-42s %8s %8s %8s\n", "", "programs", "netlink", "changes")
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		t.Run(name, func(t *testing.T) {
			h := &host{bed.New(t, "strace")}
			h.attach(t, name, 0, few)
			before := h.least(t, name)
			h.attach(t, name, few, many)
			if diff := cmp.Diff(before, h.least(t, name)); diff != "" {
				t.Errorf("with %d containers in place of %d (-%d +%d):\n%s", many, few, few, many, diff)
			}
			for _, c := range before {
				fmt.Fprintf(&table, "%-42s %8d %8d %8d\n", c.What, c.Programs, c.Netlink, c.Changes)
			}
			h.detach(t, name, many)
			h.Left("br0", "br1", "br2", "br3")
		})
	}
	const golden = "testdata/counts.golden"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(table.String()), 0o644); err != nil { //nolint:gosec // to be read by all
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), table.String()); diff != "" {
		t.Errorf("%s (-want +got; UPDATE=1 rewrites it):\n%s", golden, diff)
	}
}

type host struct{ *bed.Host }

// cost is what one call did.
type cost struct {
	What     string
	Programs int // execve
	Netlink  int // messages sent to the kernel, each of one or more requests
	Changes  int // of files and their names
	Opened   int // files, those that the Go runtime reads at each start left out
}

// least is what one more container costs when nothing is in its way: the first
// makes directories that stay, and one that comes while the kernel is busy has to
// wait for an event.
func (h *host) least(t *testing.T, list string) []cost {
	t.Helper()
	all := h.lifecycle(t, list)
	for range 4 {
		for i, c := range h.lifecycle(t, list) {
			all[i].Netlink, all[i].Changes = min(all[i].Netlink, c.Netlink), min(all[i].Changes, c.Changes)
			all[i].Opened, all[i].Programs = min(all[i].Opened, c.Opened), max(all[i].Programs, c.Programs)
		}
	}
	return all
}

// lifecycle attaches one more container and detaches it.
func (h *host) lifecycle(t *testing.T, list string) (all []cost) {
	t.Helper()
	id := "measured"
	h.Run("ip", "netns", "add", id)
	for _, verb := range []string{"ADD", "CHECK", "DEL"} {
		all = append(all, h.call(t, list, verb, id, 9, h.traced(t))...)
	}
	h.Run("ip", "netns", "del", id)
	return all
}

func (h *host) attach(t *testing.T, list string, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		h.Run("ip", "netns", "add", container(i))
		h.call(t, list, "ADD", container(i), 100+i, h.plain(t))
	}
}

func (h *host) detach(t *testing.T, list string, n int) {
	t.Helper()
	for i := range n {
		h.call(t, list, "DEL", container(i), 100+i, h.plain(t))
		h.Run("ip", "netns", "del", container(i))
	}
}

func container(i int) string { return fmt.Sprintf("c%d", i) }

// runner runs a plugin with a configuration and returns its result and its cost.
type runner func(env []string, plugin, conf string) (result string, c cost)

// call calls the list's plugins as a runtime does.
func (h *host) call(t *testing.T, list, verb, id string, port int, run runner) (all []cost) {
	t.Helper()
	env := []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + id, "CNI_NETNS=/run/netns/" + id, "CNI_IFNAME=eth0", "CNI_PATH=" + h.Plugins,
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
	}
	last := "/run/result-" + id
	prev, _ := os.ReadFile(h.Path(last))
	plugins := slices.Clone(lists[list])
	if verb == "DEL" {
		slices.Reverse(plugins)
	}
	for _, text := range plugins {
		conf := map[string]any{}
		if err := json.Unmarshal([]byte(strings.ReplaceAll(text, "PORT", fmt.Sprint(20000+port))), &conf); err != nil {
			t.Fatal(err)
		}
		conf["cniVersion"], conf["name"] = "1.0.0", "counts"
		if len(prev) > 0 {
			conf["prevResult"] = json.RawMessage(prev)
		}
		b, err := json.Marshal(conf)
		if err != nil {
			t.Fatal(err)
		}
		plugin := fmt.Sprint(conf["type"])
		out, c := run(env, plugin, string(b))
		c.What = list + ": " + plugin + " " + verb
		all = append(all, c)
		if verb == "ADD" {
			prev = []byte(out)
		}
	}
	switch verb {
	case "ADD":
		h.Write(last, string(prev))
	case "DEL":
		h.Run("rm", "-f", last)
	}
	return all
}

// plain runs a plugin.
func (h *host) plain(t *testing.T) runner {
	t.Helper()
	return func(env []string, plugin, conf string) (string, cost) {
		cmd := h.Cmd(append(append([]string{"env", "-i"}, env...), h.Plugins+"/"+plugin)...)
		cmd.Stdin = strings.NewReader(conf)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", env[0], plugin, err, out)
		}
		return string(out), cost{}
	}
}

// traced runs a plugin and counts what it asks of the kernel.
func (h *host) traced(t *testing.T) runner {
	t.Helper()
	return func(env []string, plugin, conf string) (string, cost) {
		const trace = "/run/trace"
		argv := []string{"env", "-i"}
		argv = append(append(argv, env...), "strace", "-f", "-qq", "-o", trace, "-e", "trace="+strings.Join(counted, ","), h.Plugins+"/"+plugin)
		cmd := h.Cmd(argv...)
		cmd.Stdin = strings.NewReader(conf)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", env[0], plugin, err, out)
		}
		b, err := os.ReadFile(h.Path(trace))
		if err != nil {
			t.Fatal(err)
		}
		h.Run("rm", trace)
		return string(out), count(string(b))
	}
}

// counted are the system calls that say what a plugin does; others are the Go
// runtime's, and differ from call to call.
var counted = append([]string{"execve", "sendto", "sendmsg", "openat"}, changes...)

var changes = []string{"pwrite64", "ftruncate", "renameat", "renameat2", "unlinkat", "linkat", "mkdirat", "fsetxattr", "utimensat"}

var (
	// A call that another thread interrupts has a second line, which says "resumed".
	called = regexp.MustCompile(`^\d+ +(\w+)\((?:AT_FDCWD, "([^"]*)")?`)
	// What the Go runtime looks at when it starts; it differs with the machine's
	// control groups.
	runtimes = regexp.MustCompile(`^(/proc/self/(cgroup|mountinfo|auxv)|/sys/fs/cgroup/.*|/sys/kernel/mm/.*)$`)
)

func count(trace string) (c cost) {
	for line := range strings.Lines(trace) {
		m := called.FindStringSubmatch(line)
		switch {
		case m == nil:
		case m[1] == "execve" && strings.Contains(line, " = 0"):
			c.Programs++
		case m[1] == "sendto" || m[1] == "sendmsg":
			c.Netlink++
		case m[1] == "openat" && !runtimes.MatchString(m[2]):
			c.Opened++
		case slices.Contains(changes, m[1]):
			c.Changes++
		}
	}
	return c
}
