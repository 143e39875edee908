package doctor

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
)

// The kernel says which kinds of links it does not know, and the probe leaves no
// link in this namespace.
func TestUnknownKinds(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: a network namespace is made")
	}
	before, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	missing, err := unknownKinds(slices.Concat(kinds, []kind{{"no-such-kind", "a plugin that does not exist"}}))
	if err != nil {
		t.Fatal(err)
	}
	if !missing["no-such-kind"] {
		t.Error("the kernel is believed to have links of kind no-such-kind")
	}
	if missing["veth"] || missing["bridge"] {
		t.Errorf("the tests run on veth and bridge, which are believed to be missing: %v", missing)
	}
	after, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	if len(before) != len(after) {
		t.Errorf("links: %d before, %d after", len(before), len(after))
	}
}

// A kernel that is too old is a problem, one that lacks a kind names its plugins.
func TestPreflight(t *testing.T) {
	if MayAdmin() != (os.Getuid() == 0) {
		t.Skip("not root, or root without capabilities")
	}
	found := Preflight()
	if len(found) == 0 {
		t.Fatal("looks at nothing")
	}
	for _, f := range found {
		if f.Level == finding.Problem {
			t.Errorf("this host runs the tests, and has a problem: %s", f.What)
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	kernel := "kernel " + unix.ByteSliceToString(u.Release[:])
	if os.Getuid() == 0 && !slices.ContainsFunc(found, func(f Finding) bool { return strings.Contains(f.What, kernel) }) {
		t.Errorf("does not name %s: %v", kernel, found)
	}
}

func TestKernelVersions(t *testing.T) {
	for release, old := range map[string]bool{"5.4.0-42-generic": false, "5.3.18-lp152": true, "6.18.44": false, "5.10.0": false, "4.19.0-26": true, "10.0.0": false, "5.15.167.4-microsoft-standard-WSL2": false} {
		if got := tooOld(release); got != old {
			t.Errorf("%s: too old: want %v, got %v", release, old, got)
		}
	}
}
