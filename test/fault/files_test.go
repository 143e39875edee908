package fault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/test/fault/stepper"
)

// whole are networks that between them have every plugin that this kernel can
// have, each telling the log what it does.
func whole() []list {
	chained := []object{
		with(network("all", 1), object{"ipMasqBackend": "nftables", "macspoofchk": true}),
		{"type": "tuning", "mtu": 1400, "promisc": true, "sysctl": object{"net.ipv4.conf.IFNAME.arp_filter": "1"}},
		{"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 8000000, "egressBurst": 800000},
		{"type": "sbr"},
		{"type": "portmap", "backend": "nftables", "capabilities": object{"portMappings": true}},
		{"type": "firewall", "ingressPolicy": "same-bridge"},
	}
	for i := range chained {
		chained[i]["debug"] = true
	}
	static := object{"type": "static", "addresses": []any{object{"address": "10.9.0.2/24", "gateway": "10.9.0.1"}}}
	all := append(lists()[1:], list{"all", chained}, list{"loop", []object{{"type": "loopback"}}})
	for _, p := range []object{
		{"type": "tap"},
		{"type": "dummy"},
		{"type": "vlan", "master": "lan0", "vlanId": 7},
		{"type": "ipvlan", "master": "lan0"},
		{"type": "host-device", "device": "spare0", "ipam": static},
	} {
		name := p["type"].(string)
		if p["ipam"] == nil {
			p["ipam"] = pool(name, 20+len(all))
		}
		all = append(all, list{strings.ReplaceAll(name, "-", ""), []object{p}})
	}
	return all
}

// lacking is what a kernel answers that has no links of a kind.
var lacking = regexp.MustCompile(`this kernel has no links of kind (\w+)|kernel has no dummy|operation not supported`)

// attachAll attaches a container to each network, and detaches none.
func attachAll(t *testing.T) (all []*attachment) {
	t.Helper()
	must(t, output("sh", "-c", "ip link show spare0 2>/dev/null || ip link add spare0 type veth peer name spare1"))
	t.Cleanup(func() { _ = output("ip", "link", "del", "spare0") })
	for i, l := range whole() {
		tr := &trial{T: t, judged: suite(t), list: l}
		a, s := tr.attachment(fmt.Sprintf("files%d", i), 8100+i)
		t.Cleanup(s.remove)
		if l.name == "loop" {
			a.ifname = "lo"
		}
		err := a.add(plain)
		if f := (*failure)(nil); errors.As(err, &f) && lacking.MatchString(f.text) {
			t.Logf("%s: %s", l.name, f.text)
			continue
		}
		must(t, err)
		all = append(all, a)
	}
	return all
}

// modes are what may be written where, by patterns of its path: all else is
// root's alone.
var modes = []struct {
	path *regexp.Regexp
	mode fs.FileMode
	why  string
}{
	{regexp.MustCompile(`^/var/lib/cni(/networks(/\w+)?)?$`), 0o755, "as the reference makes them: tools list the leases"},
	{regexp.MustCompile(`^/var/lib/cni/networks/\w+/lock$`), 0o750, "as the reference makes it"},
	{regexp.MustCompile(`^/run/xtables.lock$`), 0o600, "iptables' own"},
}

// Whatever the umask is, what the plugins write is root's: records, logs and
// leases can be read by nobody else, and written by nobody else in any case. (The
// socket of the dhcp daemon: cmd/netcleat/dhcpd.)
func TestCVE_2020_15257(t *testing.T) {
	reset(t)
	defer reset(t)
	mask := unix.Umask(0)
	defer unix.Umask(mask)
	attached := attachAll(t)
	if len(attached) < 6 {
		t.Fatalf("only %d networks", len(attached))
	}
	seen := map[string]int{}
	for _, root := range []string{"/run/netcleat", "/run/cni", "/run/xtables.lock", "/var/lib/cni"} {
		must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && path == root {
				return nil
			}
			if err != nil {
				return err
			}
			seen[root]++
			judgeMode(t, path)
			return nil
		}))
	}
	for _, root := range []string{"/run/netcleat", "/var/lib/cni"} {
		if seen[root] < 10 {
			t.Errorf("%s: %d files", root, seen[root])
		}
	}
	if _, err := os.Stat("/run/netcleat/debug.log"); err != nil {
		t.Errorf("nobody wrote a log: %v", err)
	}
	for _, a := range attached {
		must(t, a.del(plain))
	}
}

func judgeMode(t *testing.T, path string) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	most := fs.FileMode(0o600)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		most = 0o700
	}
	for _, m := range modes {
		if m.path.MatchString(path) {
			most = m.mode
		}
	}
	if got := fs.FileMode(st.Mode & 0o7777); got&^most != 0 || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("%s: mode %#o of %d:%d, want at most %#o of root", path, got, st.Uid, st.Gid, most)
	}
}

// keepOwn has the plugins inherit nothing that this process was given itself.
func keepOwn(t *testing.T) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, f := range open {
		if fd, err := strconv.Atoi(f.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// spy is an IPAM plugin that writes down which descriptors it was given. ls is
// given what its shell was given, and opens one itself.
const spy = `#!/bin/sh
ls -l /proc/self/fd | sed -n 's/.* \([0-9]*\) -> \(.*\)/\1 \2/p' >>SEEN
echo "$CNI_COMMAND" >>SEEN
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.8.0.2/24","gateway":"10.8.0.1"}]}'
`

// What the plugins start, be it an IPAM plugin or iptables, is given the standard
// streams and nothing else: no namespace, no socket, no lock.
func TestNoDescriptorLeaks(t *testing.T) {
	reset(t)
	defer reset(t)
	keepOwn(t)
	dir, seen := t.TempDir(), filepath.Join(t.TempDir(), "seen")
	for name, text := range map[string]string{
		"spy":              spy,
		"iptables-restore": "#!/bin/sh\nls -l /proc/self/fd | sed -n 's/.* \\([0-9]*\\) -> \\(.*\\)/\\1 \\2/p' >>SEEN\necho iptables-restore >>SEEN\nexec /usr/sbin/iptables-restore \"$@\"\n",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "SEEN", seen)), 0o755))
	}
	runner := func(c stepper.Command) (stepper.Outcome, error) {
		for i, e := range c.Env {
			if path, ok := strings.CutPrefix(e, "CNI_PATH="); ok {
				c.Env[i] = "CNI_PATH=" + dir + ":" + path
			}
			if path, ok := strings.CutPrefix(e, "PATH="); ok {
				c.Env[i] = "PATH=" + dir + ":" + path
			}
		}
		return plain(c)
	}
	for i, p := range []object{
		{"type": "bridge", "bridge": "cni1", "ipMasq": true, "ipMasqBackend": "iptables", "isGateway": true},
		{"type": "ptp", "ipMasq": true, "ipMasqBackend": "iptables"},
		{"type": "macvlan", "master": "lan0"},
		{"type": "tap"},
	} {
		p["ipam"] = object{"type": "spy"}
		tr := &trial{T: t, judged: suite(t), list: list{"spied", []object{p}}}
		a, s := tr.attachment(fmt.Sprintf("spied%d", i), 0)
		must(t, a.add(runner))
		must(t, a.check(runner))
		_, err := a.call(runner, "STATUS", p, nil)
		must(t, errors.Join(err, a.gc(runner, object{"containerID": a.id, "ifname": a.ifname}), a.del(runner)))
		s.remove()
	}
	told, err := os.ReadFile(seen)
	must(t, err)
	for _, caller := range []string{"ADD", "CHECK", "DEL", "GC", "STATUS", "iptables-restore"} {
		if !slices.Contains(strings.Split(string(told), "\n"), caller) {
			t.Errorf("nothing was started for %s:\n%s", caller, told)
		}
	}
	standard := regexp.MustCompile(`^([012] .*|3 /proc/\d+/fd|[A-Zi].*|)$`)
	for line := range strings.SplitSeq(string(told), "\n") {
		if !standard.MatchString(line) {
			t.Errorf("inherited: %s", line)
		}
	}
}

var (
	// opening is a call that makes a descriptor. What Go's runtime opens before
	// main, and its package time to name the time zone in a log, is closed at once.
	opening   = regexp.MustCompile(`\b(open|openat|openat2|socket|accept4?|dup[23]?|pipe2?|epoll_create1?|eventfd2?|inotify_init1?|memfd_create|pidfd_open|fcntl|timerfd_create|signalfd4?|socketpair)\((.*)\) += ([0-9]+)`)
	byRuntime = regexp.MustCompile(`"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"|"/etc/localtime"`)
)

// No descriptor is ever open that a program started meanwhile would inherit.
func TestDescriptorsCloseOnExec(t *testing.T) {
	reset(t)
	defer reset(t)
	made := 0
	traced := func(c stepper.Command) (o stepper.Outcome, err error) {
		log := filepath.Join(t.TempDir(), "trace")
		cmd := exec.Command("strace", "-f", "-qq", "-e", "trace=%desc,%network,pidfd_open,memfd_create", "-o", log, c.Path)
		var out, errs bytes.Buffer
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Env, bytes.NewReader(c.Stdin), &out, &errs
		if err := cmd.Run(); err != nil {
			return o, fmt.Errorf("%w: %s%s", err, &out, &errs)
		}
		trace, err := os.ReadFile(log)
		for line := range strings.Lines(string(trace)) {
			m := opening.FindStringSubmatch(line)
			if m == nil || byRuntime.MatchString(line) || m[1] == "fcntl" && !strings.Contains(m[2], "F_DUPFD") {
				continue
			}
			made++
			if !strings.Contains(m[2], "CLOEXEC") && m[1] != "pidfd_open" { // which always has it
				t.Errorf("%s: %s", filepath.Base(c.Path), strings.TrimSpace(line))
			}
		}
		return stepper.Outcome{Stdout: out.String()}, err
	}
	for i, l := range whole() {
		if l.name != "all" && l.name != "macvlan" && l.name != "ptp" && l.name != "tap" {
			continue // those that start other programs are traced with them; what they inherit is in the test above
		}
		tr := &trial{T: t, judged: suite(t), list: l}
		a, s := tr.attachment(fmt.Sprintf("traced%d", i), 8200+i)
		must(t, errors.Join(a.add(traced), a.check(traced), a.del(traced)))
		s.remove()
	}
	if made < 100 {
		t.Errorf("only %d descriptors seen", made)
	}
}
