package fault

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/test/fault/stepper"
)

// host is a host that is hostile in one way, to the lists that are named.
type hostileHost struct {
	what  string
	lists string
	// once makes the whole host so, before the ADD; mend makes it whole again,
	// before the last DEL.
	once, mend string
	// each makes it so for one plugin at a time, in a mount namespace of its own.
	each string
	// sandbox is run in the sandbox.
	sandbox string
	// code and text are of the ADD's error; code 0 is an ADD that works.
	code uint
	text string
	// aged is the day that all files say they were written on.
	aged string
}

// noFirewallTools takes iptables and nft away, wherever they are.
const noFirewallTools = `for f in /usr/sbin/xtables-*-multi /usr/sbin/nft /usr/sbin/xtables-monitor; do [ ! -f $f ] || mount --bind /dev/null $f; done`

const (
	ipv6Off = `sysctl -qw net.ipv6.conf.default.disable_ipv6=1`
	ipv6On  = `sysctl -qw net.ipv6.conf.default.disable_ipv6=0`
)

var hostileHosts = []hostileHost{
	{what: "read-only /proc/sys, nothing preset", lists: "nft ipt ptp layer2", each: `mount --bind -o ro /proc/sys /proc/sys`, code: 999, text: `sysctl net/\S+=\S+: read-only file system \(preset it.*sysctl -w net/`},
	{
		what: "read-only /proc/sys, preset", lists: "nft ipt ptp layer2", each: `mount --bind -o ro /proc/sys /proc/sys`,
		once:    `sysctl -qw net.ipv6.conf.default.accept_ra=0 net.ipv4.conf.default.route_localnet=1 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`,
		mend:    `sysctl -qw net.ipv6.conf.default.accept_ra=1 net.ipv4.conf.default.route_localnet=0 net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0`,
		sandbox: `sysctl -qw net.ipv6.conf.default.accept_ra=0`,
	},
	{what: "read-only /proc/sys, macvlan", lists: "macvlan", each: `mount --bind -o ro /proc/sys /proc/sys`},
	{what: "no iptables and nft programs", lists: "nft macvlan ptp", each: noFirewallTools},
	{what: "no iptables and nft programs, which iptables needs", lists: "ipt", each: noFirewallTools, code: 999, text: `iptables-restore: not installed`},
	{what: "no iptables and nft programs, backends left open", lists: "open", each: noFirewallTools},
	{what: "no PATH at all", lists: "nft ipt macvlan ptp", each: `unset PATH`},
	{what: "iptables-legacy in use", lists: "nft macvlan ptp open", once: `iptables-legacy -t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE; iptables-legacy -P FORWARD DROP`, mend: `iptables-legacy -t nat -F; iptables-legacy -P FORWARD ACCEPT`},
	{what: "FORWARD drops, in nftables", lists: "nft ipt open", once: `iptables -P FORWARD DROP; ip6tables -P FORWARD DROP`, mend: `iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT`},
	{what: "IPv6 off by sysctl, on the bridge", lists: "nft ipt", once: ipv6Off, mend: ipv6On, code: 999, text: `IPv6 is disabled on this device`},
	{what: "IPv6 off by sysctl", lists: "macvlan ptp", once: ipv6Off, mend: ipv6On},
	{what: "records cannot be written", lists: "nft macvlan ptp", once: `mkdir -p /run/netcleat; mount -t tmpfs -o ro,size=64k tmpfs /run/netcleat`, mend: `umount /run/netcleat`, code: 5, text: `/run/netcleat.*read-only file system`},
	{what: "records are full", lists: "nft macvlan ptp", once: `mkdir -p /run/netcleat; mount -t tmpfs -o size=4k,nr_inodes=100 tmpfs /run/netcleat; head -c 4096 /dev/zero >/run/netcleat/full`, mend: `umount /run/netcleat`, code: 5, text: `no space left on device`},
	{what: "no inodes for records", lists: "nft macvlan ptp", once: `mkdir -p /run/netcleat; mount -t tmpfs -o nr_inodes=2 tmpfs /run/netcleat`, mend: `umount /run/netcleat`, code: 5, text: `no space left on device`},
	{what: "records' directory is a file", lists: "nft macvlan ptp", once: `rm -rf /run/netcleat; echo x >/run/netcleat`, mend: `rm /run/netcleat`, code: 5, text: `/run/netcleat.*not a directory`},
	{what: "leases cannot be written", lists: "nft macvlan ptp", once: `mount -t tmpfs -o ro tmpfs /var/lib/cni`, mend: `umount /var/lib/cni`, code: 5, text: `/var/lib/cni.*read-only file system`},
	{what: "leases are full", lists: "nft macvlan ptp", once: `mount -t tmpfs -o size=4k tmpfs /var/lib/cni; head -c 4096 /dev/zero >/var/lib/cni/full`, mend: `umount /var/lib/cni`, code: 5, text: `no space left on device`},
	{what: "an umask that forbids", lists: "nft ipt macvlan ptp", each: `umask 0777`},
	{what: "a working directory that is gone", lists: "nft ipt macvlan ptp", each: `mkdir /tmp/gone.$$; cd /tmp/gone.$$; rmdir /tmp/gone.$$`},
	{what: "the clock went back by years", lists: "nft ipt macvlan ptp", aged: "2001-01-01"},
	{what: "the clock went ahead by years", lists: "nft ipt macvlan ptp", aged: "2099-01-01"},
}

// hostileLists are the lists by name: those that are killed, and two more.
func hostileLists() map[string]list {
	all := map[string]list{
		"layer2": {"layer2", []object{{"type": "bridge", "bridge": "cni6"}, {"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 800000}}},
		"open": {"open", []object{
			with(network("open", 5), nil), {"type": "portmap", "capabilities": object{"portMappings": true}}, {"type": "firewall"},
		}},
	}
	for _, l := range lists() {
		all[l.name] = l
	}
	return all
}

// on runs plugins on the host, as far as that is made so for each.
func (h hostileHost) on(c stepper.Command) (stepper.Outcome, error) {
	if h.each == "" {
		return plain(c)
	}
	cmd := exec.Command("unshare", "-m", "--propagation", "slave", "/bin/sh", "-ec", h.each+"\nexec "+c.Path)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Env, bytes.NewReader(c.Stdin), &out, &errs
	err := cmd.Run()
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		err = nil
	}
	return stepper.Outcome{Exit: cmd.ProcessState.ExitCode(), Stdout: out.String(), Stderr: errs.String()}, err
}

// On a hostile host an ADD either works, and so do CHECK and DEL there, or it
// says precisely what is wrong and leaves nothing. A DEL that cannot be done
// there is done when the host is whole again.
func TestHostile(t *testing.T) {
	for _, h := range hostileHosts {
		for _, name := range strings.Fields(h.lists) {
			t.Run(h.what+"/"+name, func(t *testing.T) { h.try(t, hostileLists()[name]) })
		}
	}
}

func (h hostileHost) try(t *testing.T, l list) {
	t.Helper()
	reset(t)
	t.Cleanup(func() { reset(t) })
	tr := &trial{T: t, judged: suite(t), list: l}
	if h.aged != "" {
		h.age(tr)
		return
	}
	a, s := tr.attachment("hosted", 8300)
	defer s.remove()
	mended := h.break_(t)
	if h.sandbox != "" {
		must(t, output("nsenter", "--net="+a.netns, "sh", "-c", h.sandbox))
	}
	before := snapshot(t)
	err := a.add(h.on)
	if h.code != 0 {
		h.refused(t, err)
		if left := append(h.residue(before, snapshot(t)), s.links(t)...); len(left) > 0 && l.name != "nft" && l.name != "ipt" {
			t.Errorf("left at once: %s", strings.Join(left, "\n\t"))
		}
		if err := a.del(h.on); err != nil {
			h.says(t, "DEL", err)
		}
	} else {
		must(t, err)
		h.lives(t, a)
	}
	mended()
	must(t, a.del(plain))
	must(t, a.gc(plain))
	if left := append(h.residue(before, snapshot(t)), s.links(t)...); len(left) > 0 {
		t.Errorf("left: %s", strings.Join(left, "\n\t"))
	}
}

// break_ makes the whole host hostile, and returns what mends it.
func (h hostileHost) break_(t *testing.T) (mend func()) {
	t.Helper()
	if h.once == "" {
		return func() {}
	}
	must(t, output("sh", "-ec", h.once))
	done := false
	mend = func() {
		if !done && h.mend != "" {
			must(t, output("sh", "-ec", h.mend))
		}
		done = true
	}
	t.Cleanup(mend)
	return mend
}

// own is what makes a host hostile, and no residue.
var own = regexp.MustCompile(`/full$|/run/netcleat$|sysctl |policy |MASQUERADE|ip6? (filter|nat)( |$)`)

func (h hostileHost) residue(before, after []string) (diff []string) {
	for _, d := range residue(before, after) {
		if h.once == "" || !own.MatchString(d) {
			diff = append(diff, d)
		}
	}
	return diff
}

func (h hostileHost) refused(t *testing.T, err error) {
	t.Helper()
	f := (*failure)(nil)
	if !errors.As(err, &f) {
		t.Errorf("ADD: %v, want code %d: %s", err, h.code, h.text)
		return
	}
	if f.code != h.code {
		t.Errorf("ADD: code %d, want %d: %s", f.code, h.code, f.text)
	}
	h.says(t, "ADD", err)
}

// says judges whether an error says what is wrong with the host.
func (h hostileHost) says(t *testing.T, verb string, err error) {
	t.Helper()
	if !regexp.MustCompile(h.text).MatchString(err.Error()) || strings.Contains(err.Error(), "panic") {
		t.Errorf("%s: %v\nwant …%s…", verb, err, h.text)
	}
}

func (h hostileHost) lives(t *testing.T, a *attachment) {
	t.Helper()
	if err := a.check(h.on); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	result := a.result
	if err := a.del(h.on); err != nil {
		t.Errorf("DEL: %v", err)
	}
	a.result = result
}

// age sets all times of records and leases, and of their directories, to another
// year, between every two calls.
func (h hostileHost) age(tr *trial) {
	year, _, _ := strings.Cut(h.aged, "-")
	jump := func() {
		tr.Helper()
		must(tr, output("sh", "-ec", `find /run/netcleat /var/lib/cni -exec touch -h -d `+h.aged+` {} +
			find /run/netcleat -type f -not -path '*/.*' -exec sed -i -E 's/("created":")[0-9]{4}/\1`+year+`/' {} +`))
	}
	seen := map[string]string{}
	before := snapshot(tr)
	var all []*attachment
	for i := range 4 {
		a, s := tr.attachment(fmt.Sprintf("aged%d", i), 8310+i)
		defer s.remove()
		must(tr, a.add(plain))
		for _, addr := range a.addresses() {
			if other := seen[addr]; other != "" {
				tr.Errorf("%s has the address %s of %s", a.id, addr, other)
			}
			seen[addr] = a.id
		}
		all = append(all, a)
		jump()
	}
	if len(seen) < 4 {
		tr.Fatalf("addresses %v", seen)
	}
	var valid []object
	for _, a := range all {
		must(tr, a.check(plain))
		valid = append(valid, object{"containerID": a.id, "ifname": a.ifname})
	}
	must(tr, all[0].gc(plain, valid[1:]...)) // as if the first's DEL had been lost
	for i, a := range all {
		jump()
		if err := a.check(plain); (err != nil) != (i == 0) {
			tr.Errorf("CHECK of %s after GC: %v", a.id, err)
		}
	}
	for _, command := range []string{"ls", "doctor", "gc", "reconcile"} {
		cmd := exec.Command(filepath.Join(filepath.Dir(tr.dir), "netcleat"), command)
		if out, err := cmd.CombinedOutput(); err != nil && command != "doctor" || strings.Contains(string(out), "goroutine ") {
			tr.Errorf("netcleat %s: %v\n%s", command, err, out)
		}
	}
	for _, a := range all {
		must(tr, a.del(plain))
	}
	if left := residue(before, snapshot(tr)); len(left) > 0 {
		tr.Errorf("left: %s", strings.Join(left, "\n\t"))
	}
}

var tooFew = regexp.MustCompile(`too many open files|runtime: \w+ failed with -?24`)

// With few descriptors an ADD works or says that there are too few, however few
// that are; where Go's runtime itself has none for its poller it is as if the
// plugin was killed. DEL then leaves nothing.
func TestHostileFewDescriptors(t *testing.T) {
	outcomes := map[string]int{}
	for _, n := range []int{8, 11, 14, 17, 20, 24, 48} {
		for _, name := range []string{"nft", "macvlan"} {
			reset(t)
			h := hostileHost{each: fmt.Sprintf("ulimit -n %d", n)}
			a, s := (&trial{T: t, judged: suite(t), list: hostileLists()[name]}).attachment("poor", 8300)
			before := snapshot(t)
			err := a.add(h.on)
			if outcomes["works"]++; err != nil {
				outcomes["works"]--
				outcomes["fails"]++
				if !tooFew.MatchString(err.Error()) {
					t.Errorf("ADD of %s with %d: %v", name, n, err)
				}
			}
			must(t, a.del(plain))
			if left := append(residue(before, snapshot(t)), s.links(t)...); len(left) > 0 {
				t.Errorf("%s with %d left: %s", name, n, strings.Join(left, "\n\t"))
			}
			s.remove()
		}
	}
	reset(t)
	if outcomes["works"] == 0 || outcomes["fails"] == 0 {
		t.Errorf("all the same: %v", outcomes)
	}
}

// A write that a policy such as SELinux's denies, to whichever file: the ADD says
// so, or can do without, and nothing is left.
func TestHostileDenied(t *testing.T) {
	denied := 0
	for i, l := range lists() {
		if l.name == "ipt" {
			continue // iptables(8) makes the changes, and says in its own words what failed
		}
		tr := &trial{T: t, judged: suite(t), list: l, verb: "ADD"}
		reset(t)
		a, s := tr.attachment("dry", 8000)
		dry := &stepped{}
		must(t, tr.run(a, dry))
		must(t, a.del(plain))
		s.remove()
		for n, change := range dry.changes {
			if !strings.Contains(change, "/") || !full() && (n+i)%6 != 0 {
				continue
			}
			_, hit := tr.refuseOne(n+1, unix.EACCES)
			if hit {
				denied++
			}
		}
	}
	reset(t)
	if denied < 6 {
		t.Errorf("only %d files were denied", denied)
	}
	t.Logf("%d writes denied", denied)
}
