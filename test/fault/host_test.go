package fault

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// stays are the things that the first attachment makes and the last one does not
// take away.
var stays = []struct{ what, reason string }{
	{`link cni\d: `, "a bridge is shared, and may be an operator's"},
	{`addr cni\d .*`, "the bridge keeps the gateway's address: it is the network's"},
	{`route .* dev cni\d .*`, "follows from the bridge's address"},
	{`sysctl net\.ipv[46]\.\S+ = [01]`, "others may have come to rely on forwarding"},
	{`file /var/lib/cni/networks/\w+/(lock|last_reserved_ip\.\d)`, "host-local's, as the reference keeps them"},
	{`file /run/netcleat/\.leases\S*`, "host-local's index, one a network"},
	{`file /run/xtables.lock`, "iptables' own"},
	{`nft table ip6? (filter|nat|mangle|raw)( chain (FORWARD|PREROUTING|INPUT|OUTPUT|POSTROUTING)( type \w+ hook \w+ priority [\w -]+; policy accept;)?)?`, "iptables' own tables and chains, made by its first use"},
	{`nft table ip6? filter chain (FORWARD )?.*CNI-(FORWARD|ADMIN|ISOLATION-STAGE-[12]).*`, "firewall's own chains, one a host, empty of containers"},
	{`nft table ip6? nat chain .*CNI-(HOSTPORT-\w+).*`, "portmap's own chains with the iptables backend, one a host, empty of containers"},
}

var stay = func() *regexp.Regexp {
	var all []string
	for _, s := range stays {
		all = append(all, s.what)
	}
	return regexp.MustCompile(`^(` + strings.Join(all, "|") + `)$`)
}()

// snapshotScript prints a line for each thing that an attachment may have made.
const snapshotScript = `
ip -d -o link | sed -E 's/^[0-9]+: ([^:@]+)[@:].*/link \1: /'
ip -o addr | awk '{print "addr", $2, $3, $4}'
ip route show table all | sed 's/^/route /'
ip -6 route show table all | sed 's/^/route /'
ip rule | sed 's/^/rule /'
tc qdisc | grep -v noqueue | sed 's/^/qdisc /'
sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding | sed 's/^/sysctl /'
find /run /var/lib/cni \( -path /run/netns -o -path /run/lock \) -prune -o -type f -printf 'file %p\n'
echo RULES
nft list ruleset 2>/dev/null
`

var (
	noise = regexp.MustCompile(`^(route|addr) .*(fe80:|multicast|ff00::|anycast|dev lo\b)|counter packets`)
	idle  = regexp.MustCompile(` ?counter packets \d+ bytes \d+| (linkdown|proto kernel|expires \d+\S*)|# handle.*|,? ?expires [\dhms]+`)
)

// snapshot returns what the host has, sorted.
func snapshot(t testing.TB) []string {
	t.Helper()
	out, err := exec.Command("sh", "-c", snapshotScript).Output()
	must(t, err)
	things, rules, _ := strings.Cut(string(out), "RULES\n")
	lines := strings.Split(strings.TrimSpace(things), "\n")
	lines = slices.DeleteFunc(lines, noise.MatchString)
	lines = append(lines, ruleLines(rules)...)
	for i, l := range lines {
		lines[i] = strings.TrimRight(idle.ReplaceAllString(l, ""), " ")
		if strings.HasPrefix(lines[i], "link ") {
			lines[i] += " "
		}
	}
	slices.Sort(lines)
	return lines
}

// ruleLines gives each line of a ruleset its table and chain.
func ruleLines(ruleset string) (all []string) {
	table, chain := "", ""
	for line := range strings.Lines(ruleset) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#") || line == "}" && chain == "":
		case line == "}":
			chain = ""
		case strings.HasPrefix(line, "table "):
			table = strings.TrimSuffix(line, " {")
			all = append(all, "nft "+table+" ")
		case strings.HasSuffix(line, " {") && chain == "":
			chain = strings.TrimSuffix(line, " {")
			all = append(all, "nft "+table+" "+chain)
		default:
			all = append(all, "nft "+table+" "+chain+" "+line)
		}
	}
	return all
}

// residue is what is there after that was not before, and the other way round,
// but for what stays by design.
func residue(before, after []string) (diff []string) {
	missing := slices.Clone(before)
	for _, line := range after {
		if i, found := slices.BinarySearch(missing, line); found {
			missing = slices.Delete(missing, i, i+1)
		} else if !stay.MatchString(line) {
			diff = append(diff, "left: "+line)
		}
	}
	for _, line := range missing {
		if !stay.MatchString(line) {
			diff = append(diff, "gone: "+line)
		}
	}
	return diff
}

// reset takes away all that anybody left, as a reboot would: with the link to the
// outside goes each macvlan on it, wherever it is, and with a pair's end on the
// host the other.
func reset(t testing.TB) {
	t.Helper()
	must(t, output("sh", "-c", `
		for l in $(ip -o link | awk -F '[ :@]+' '$2 != "lo" {print $2}'); do ip link del $l 2>/dev/null; done
		nft flush ruleset
		rm -rf /run/netcleat /run/cni /var/lib/cni/*
		sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0`+lan))
}

// sandbox is a container's network namespace.
type sandbox struct {
	path string
	fd   *os.File
}

var sandboxes atomic.Int64

// newSandbox makes a sandbox, with lo up as a runtime has it.
func newSandbox(t testing.TB) *sandbox {
	t.Helper()
	s := &sandbox{path: fmt.Sprintf("/run/netns/s%d", sandboxes.Add(1))}
	must(t, os.WriteFile(s.path, nil, 0o600))
	done := make(chan error)
	go func() { done <- s.make() }()
	must(t, <-done)
	return s
}

// make runs on a thread that ends with it.
func (s *sandbox) make() (err error) {
	runtime.LockOSThread()
	if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	if s.fd, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	return unix.Mount("/proc/thread-self/ns/net", s.path, "", unix.MS_BIND, "")
}

// links lists the links in the sandbox but lo, as residue.
func (s *sandbox) links(t testing.TB) []string {
	t.Helper()
	all := linksOf(t, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.fd.Fd()))
	for i := range all {
		all[i] = "left: in the sandbox " + all[i]
	}
	return all
}

// linksOf lists the links in a namespace but lo.
func linksOf(t testing.TB, path string) (all []string) {
	t.Helper()
	out, err := exec.Command("nsenter", "--net="+path, "ip", "-o", "link").Output()
	must(t, err)
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); f[1] != "lo:" {
			all = append(all, strings.Trim(f[1], ":"))
		}
	}
	return all
}

// unmount takes the sandbox's path away. Somebody else still holds it: what it
// has does not go by itself.
func (s *sandbox) unmount() {
	_ = unix.Unmount(s.path, unix.MNT_DETACH)
	_ = os.Remove(s.path)
}

// remove ends the sandbox.
func (s *sandbox) remove() {
	s.unmount()
	_ = s.fd.Close()
}
