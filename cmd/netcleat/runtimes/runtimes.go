// Package runtimes knows the container runtimes of a host: where their
// configuration files say that networks are, and which versions of the CNI
// specification the installed ones read.
package runtimes

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/netcleat/netcleat/pkg/semver"
)

// Runtime is a runtime that is installed.
type Runtime struct {
	Name    string
	Version string
	Reads   string // the newest cniVersion that it accepts
}

// String is its name with its version.
func (r Runtime) String() string { return r.Name + " " + r.Version }

// known are the runtimes of which it is known since when they read version 1.1.0:
// since their libcni is 1.2 or later.
var known = []struct{ name, since string }{
	{"containerd", "2.0.0"},
	{"nerdctl", "2.0.0"},
	{"podman", "5.4.0"},
}

// patience bounds how long a runtime is waited for to say its version.
const patience = 5 * time.Second

var number = regexp.MustCompile(`\bv?(\d+\.\d+\.\d+)`)

// Installed returns the runtimes that are in PATH and read network configuration
// lists. podman does so only with its CNI backend.
func Installed(ctx context.Context) (all []Runtime) {
	for _, k := range known {
		path, err := exec.LookPath(k.name)
		if err != nil || k.name == "podman" && !Root("/").podmanHasCNI() {
			continue
		}
		soon, cancel := context.WithTimeout(ctx, patience)
		out, err := exec.CommandContext(soon, path, "--version").Output()
		cancel()
		m := number.FindStringSubmatch(string(out))
		if err != nil || m == nil {
			continue // it cannot be asked
		}
		r := Runtime{Name: k.name, Version: m[1], Reads: "1.0.0"}
		if semver.AtLeast(r.Version, k.since) {
			r.Reads = "1.1.0"
		}
		all = append(all, r)
	}
	return all
}

// Refuses says which of the runtimes refuse a list of that cniVersion; "" where
// none does.
func Refuses(all []Runtime, version string) string {
	var who []string
	for _, r := range all {
		if !semver.AtLeast(r.Reads, version) {
			who = append(who, fmt.Sprintf("%s reads versions up to %s", r, r.Reads))
		}
	}
	return strings.Join(who, ", ")
}
