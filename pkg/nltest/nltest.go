// Package nltest gives a test its own host and sandbox, runs plugins in it as a
// runtime does, and makes the kernel refuse on demand.
package nltest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// A Bed is a throw-away host and one sandbox. The test's thread is in the host.
type Bed struct {
	Host    *netns.NS
	Sandbox *netns.NS
	Path    string // of the sandbox, for CNI_NETNS
	Dir     string // for the journal, leases and the like; part of the snapshot
	t       testing.TB
}

// New moves the test's thread into a new host namespace and makes a sandbox
// beside it. It skips the test where that takes more privilege than it has. The
// test must not be parallel to itself: the thread dies with it.
func New(t testing.TB) *Bed {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	home, err := netns.Open(netns.Own)
	must(t, err)
	t.Cleanup(func() { _ = home.Close() }) // also where the test is skipped
	b := &Bed{t: t, Dir: t.TempDir()}
	b.Sandbox = b.NewSandbox()
	b.Path = b.PathOf(b.Sandbox)
	b.Host = newNS(t) // last: the thread stays there
	b.loUp(b.Host)
	t.Cleanup(func() { must(t, unix.Setns(home.Fd(), unix.CLONE_NEWNET)) })
	return b
}

// loUp brings up the loopback interface of ns.
func (b *Bed) loUp(ns *netns.NS) {
	b.t.Helper()
	c, err := nl.Dial(ns, unix.NETLINK_ROUTE, nil)
	must(b.t, err)
	defer func() { must(b.t, c.Close()) }()
	must(b.t, c.Do(nl.SetUp("lo", 1)))
}

// NewSandbox makes one more sandbox. The thread stays where it is.
func (b *Bed) NewSandbox() *netns.NS {
	b.t.Helper()
	back, err := netns.Open(netns.Own)
	must(b.t, err)
	defer func() { must(b.t, back.Close()) }() // also where newNS skips the test
	n := newNS(b.t)
	must(b.t, unix.Setns(back.Fd(), unix.CLONE_NEWNET))
	return n
}

// PathOf returns a path of n that holds as long as the test runs.
func (b *Bed) PathOf(n *netns.NS) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.Fd())
}

func newNS(t testing.TB) *netns.NS {
	t.Helper()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN: run it as root (make test)")
	}
	must(t, err)
	n, err := netns.Open(netns.Own)
	must(t, err)
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// IP runs ip(8) in the host and returns what it prints.
func (b *Bed) IP(args ...string) string { b.t.Helper(); return b.Run("ip", args...) }

// IPBatch runs commands of ip(8) in the host, one a line, in one process. That is
// much faster than one each, above all in the VM.
func (b *Bed) IPBatch(commands string, options ...string) string {
	b.t.Helper()
	cmd := exec.Command("ip", append(options, "-batch", "-")...)
	cmd.Stdin = strings.NewReader(commands)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("ip %s:\n%s\n%v\n%s", strings.Join(options, " "), commands, err, out)
	}
	return string(out)
}

// Run runs a command in the host; its failure is the test's.
func (b *Bed) Run(name string, args ...string) string {
	b.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Try runs a command in the host and returns what it prints and whether it
// succeeded.
func (b *Bed) Try(name string, args ...string) (string, bool) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err == nil
}

// In runs fn with the test's thread inside ns.
func (b *Bed) In(ns *netns.NS, fn func()) {
	b.t.Helper()
	must(b.t, ns.Do(func() error { fn(); return nil }))
}

// SandboxIP runs ip(8) in the sandbox.
func (b *Bed) SandboxIP(args ...string) (out string) {
	b.t.Helper()
	b.In(b.Sandbox, func() { out = b.IP(args...) })
	return out
}

// Faults counts the changes asked of the kernel and refuses the one numbered
// At, from 1 on. It is a gate.Gate by its method Gate.
type Faults struct {
	At, Seen int
	On       bool   // refuses all that come after it, too
	Err      error  // EIO where nil
	What     string // the change that was refused, in words
}

// Hit reports whether a change was refused.
func (f *Faults) Hit() bool { return f.At > 0 && f.Seen >= f.At }

// Gate counts one change and refuses the chosen one.
func (f *Faults) Gate(what string) error {
	if f.Seen++; f.Seen != f.At && (!f.On || !f.Hit()) {
		return nil
	}
	f.What = what
	if f.Err != nil {
		return f.Err
	}
	return fmt.Errorf("injected: %w", unix.EIO)
}

// Require skips the test where the kernel lacks a feature, which names what
// only such kernels have ("ipvlan", "vlan", "vrf", "dummy"). Where the
// environment's REQUIRE lists the feature, as in the VM, it fails instead.
func Require(t testing.TB, feature string, probe func() error) {
	t.Helper()
	err := probe()
	if err == nil {
		return
	}
	if required(feature) {
		t.Fatalf("this kernel must have %s: %v", feature, err)
	}
	t.Skipf("kernel without %s (make test-vm runs it): %v", feature, err)
}

// required reports whether the environment's REQUIRE lists the feature.
func required(feature string) bool {
	return slices.Contains(strings.Split(os.Getenv("REQUIRE"), ","), feature)
}

// HasLink is a probe for a kind of link: it makes one in a throw-away
// namespace, of a veth where the kind needs a parent. Of a kind that REQUIRE
// lists it takes that on trust: a test that needs it fails without.
func (b *Bed) HasLink(kind string, args ...string) func() error {
	return func() (err error) {
		if required(kind) {
			return nil
		}
		ns := b.NewSandbox()
		b.In(ns, func() {
			var out bytes.Buffer
			argv := []string{"link", "add", "name", "probe0", "type", kind}
			if slices.Contains([]string{"ipvlan", "macvlan", "vlan"}, kind) {
				b.IP("link", "add", "parent0", "type", "veth", "peer", "name", "parent1")
				argv = append([]string{"link", "add", "link", "parent0"}, argv[2:]...)
			}
			if kind == "vlan" && len(args) == 0 {
				args = []string{"id", "7"}
			}
			cmd := exec.Command("ip", append(argv, args...)...)
			cmd.Stdout, cmd.Stderr = &out, &out
			if cmd.Run() != nil {
				err = errors.New(strings.TrimSpace(out.String()))
			}
		})
		return err
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
