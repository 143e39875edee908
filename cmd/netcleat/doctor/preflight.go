package doctor

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/semver"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

// oldest is the oldest kernel that the plugins are made for.
const oldest = "5.4.0"

// kind is a kind of links, and the plugins that make them.
type kind struct{ name, plugins string }

// kinds are the kinds of links that plugins make.
var kinds = []kind{
	{"veth", "bridge and ptp"},
	{"bridge", "bridge"},
	{"macvlan", "macvlan"},
	{"ipvlan", "ipvlan"},
	{"vlan", "vlan, and bridge with gateways in VLANs"},
	{"vrf", "vrf"},
	{"dummy", "dummy"},
	{"ifb", "bandwidth's limits of what a container sends"},
}

// Preflight looks for what the plugins need of a host, before there is any
// container, and says which will not work and why.
func Preflight() []Finding {
	e := &exam{}
	e.version()
	e.kernel()
	e.linkKinds()
	e.sysctls()
	return e.found
}

// version looks whether the kernel is new enough.
func (e *exam) version() {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		e.broken(err)
		return
	}
	if release := unix.ByteSliceToString(u.Release[:]); tooOld(release) {
		e.add(finding.Problem, finding.Do("boot Linux "+oldest+" or later"), "kernel %s: the plugins are made for %s and later", release, oldest)
	}
}

// tooOld reports whether a kernel's release, such as 5.4.0-42-generic, is before
// the oldest.
func tooOld(release string) bool {
	version, _, _ := strings.Cut(release, "-")
	return !semver.AtLeast(version, oldest)
}

// linkKinds asks the kernel for a link of each kind, in a network namespace of a
// thread that ends with it. What a kind needs besides, such as a parent, is not
// given: only the kernel's word that it does not know the kind counts.
func (e *exam) linkKinds() {
	missing, err := unknownKinds(kinds)
	switch {
	case errors.Is(err, unix.EPERM):
		e.add(finding.Note, finding.Do("run it as root on the host"), "kinds of links: not known without the privilege to make a network namespace")
		return
	case err != nil:
		e.broken(fmt.Errorf("kinds of links: %w", err))
		return
	}
	for _, k := range kinds {
		if missing[k.name] {
			e.add(finding.Warning, finding.Do("load the kernel's module "+k.name+", where it has one"), "the kernel has no links of kind %s: %s will not work", k.name, k.plugins)
		}
	}
	if len(missing) == 0 {
		e.add(finding.Fine, nothing, "kernel has all kinds of links")
	}
}

// unknownKinds returns the kinds that the kernel does not know.
func unknownKinds(kinds []kind) (missing map[string]bool, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with this function, and its namespace with it.
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		var c *nl.Conn
		if c, err = nl.Dial(nil, unix.NETLINK_ROUTE, nil); err != nil {
			return
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		missing = map[string]bool{}
		for _, k := range kinds {
			m := nl.NewLink(k.name, "nc-"+k.name, 0)
			m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, k.name).End()
			if errors.Is(c.Do(m), unix.EOPNOTSUPP) {
				missing[k.name] = true
			}
		}
	}()
	<-done
	return missing, err
}

// sysctls looks for settings that plugins change or suffer from.
func (e *exam) sysctls() {
	if _, err := sysctl.Get(nil, "net/ipv6/conf/all/forwarding"); err != nil {
		e.add(finding.Note, nothing, "IPv6 is off: networks with IPv6 addresses will not work")
	}
	if v, err := sysctl.Get(nil, "net/bridge/bridge-nf-call-iptables"); err == nil && v == "1" {
		e.add(finding.Note, nothing, "bridge-nf-call-iptables is on: the host's rules also meet what stays within a bridge")
	}
	if err := unix.Access("/proc/sys/net", unix.W_OK); err != nil {
		e.add(finding.Warning, finding.Do("mount /proc/sys writable, or set net.ipv4.ip_forward=1 and net.ipv6.conf.all.forwarding=1 on the host"), "/proc/sys is read-only: plugins that need forwarding cannot turn it on")
	}
}
