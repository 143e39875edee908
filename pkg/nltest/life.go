package nltest

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

// Life is an attachment of an interface plugin, for the tests that all of those
// pass.
type Life struct {
	Name   string        // the plugin's
	Plugin plugin.Plugin // under test
	Keys   string        // of the configuration, beside those that all have: `"master":"up0"`
	// Prepare sets a fresh bed up: a master and what is behind it. It returns
	// the neighbour that Reach speaks to, or nil.
	Prepare func(*Bed) *netns.NS
	// Reach fails the test unless packets pass between the sandbox and the
	// neighbour. nil: there is nobody to reach.
	Reach func(*Bed, *netns.NS, *StubIPAM)
	// Feature is what the kernel must have (see Require), where many lack it; ""
	// is nothing.
	Feature string
	// Layer2 says that the plugin also works without addresses.
	Layer2 bool
}

// Families are the addresses of the tests: the neighbour has .1 and ::1.
func Families() map[string]*StubIPAM {
	return map[string]*StubIPAM{
		"v4":   {Addresses: []string{"10.1.0.2/16 10.1.0.1"}, Routes: []string{"0.0.0.0/0"}},
		"v6":   {Addresses: []string{"fd00:1::2/64 fd00:1::1"}, Routes: []string{"::/0"}},
		"dual": DualStack(),
	}
}

// DualStack has an address of each family.
func DualStack() *StubIPAM {
	return &StubIPAM{
		Addresses: []string{"10.1.0.2/16 10.1.0.1", "fd00:1::2/64 fd00:1::1"},
		Routes:    []string{"0.0.0.0/0", "192.0.2.0/24 10.1.0.9", "::/0"},
	}
}

// Call is a call of the plugin with more keys than the Life's own; a nil stub is
// a configuration without IPAM.
func (l Life) Call(stub *StubIPAM, keys ...string) Call {
	conf := `{"cniVersion":"1.1.0","name":"net","type":"` + l.Name + `"`
	for _, k := range append([]string{l.Keys}, keys...) {
		if k != "" {
			conf += "," + k
		}
	}
	t := plugin.Table{l.Name: l.Plugin}
	if stub != nil {
		t["stub"] = stub.Plugin()
		conf += `,"ipam":{"type":"stub"}`
	}
	return Call{Table: t, Plugin: l.Name, Conf: conf + "}"}
}

// With adds keys to the configuration.
func (c Call) With(keys string) Call {
	c.Conf = strings.TrimSuffix(c.Conf, "}") + "," + keys + "}"
	return c
}

// As is the call for another container, in its own sandbox.
func (c Call) As(containerID, netns string) Call {
	c.ContainerID, c.Netns = containerID, netns
	return c
}

func (l Life) prepared(t *testing.T) (*Bed, *netns.NS) {
	t.Helper()
	bed := New(t)
	return bed, l.Prepare(bed)
}

// Test runs all of them.
func (l Life) Test(t *testing.T) {
	if l.Feature != "" {
		l.Require(t)
	}
	t.Run("lifecycle", l.lifecycles)
	t.Run("DEL with parts", l.parts)
	t.Run("retry", l.retry)
	t.Run("next container", l.spares)
	t.Run("taken name", l.takenName)
	t.Run("GC", l.collects)
	t.Run("DNS", l.dns)
	t.Run("routes of the other family", l.otherFamily)
	t.Run("no trace", func(t *testing.T) {
		stub := DualStack()
		NoTrace(t, l.Call(stub), func(b *Bed) {
			l.Prepare(b)
			b.Forward()
			if stub.Held != 0 {
				t.Errorf("%d addresses held by failed ADDs", stub.Held)
			}
			stub.Held = 0
		})
	})
}

// Require skips the test where the kernel lacks the plugin's feature.
func (l Life) Require(t *testing.T) {
	t.Helper()
	b := New(t)
	Require(t, l.Feature, b.HasLink(l.Feature))
}

// lifecycles has every version of the specification, and every choice of
// families.
func (l Life) lifecycles(t *testing.T) {
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"} {
		t.Run(version, func(t *testing.T) { l.lifecycle(t, version, DualStack()) })
	}
	for family, stub := range Families() {
		t.Run("1.1.0 "+family, func(t *testing.T) { l.lifecycle(t, "1.1.0", stub) })
	}
	if l.Layer2 {
		t.Run("1.1.0 layer 2", func(t *testing.T) { l.lifecycle(t, "1.1.0", nil) })
	}
}

func (l Life) lifecycle(t *testing.T, version string, stub *StubIPAM) {
	t.Helper()
	bed, neighbour := l.prepared(t)
	c := l.Call(stub)
	c.Conf = strings.Replace(c.Conf, "1.1.0", version, 1)
	a := bed.Do(plugin.Add, c)
	if a.Exit != 0 {
		t.Fatal(a.Stdout)
	}
	if hasMTU := strings.Contains(a.Stdout, `"mtu"`); hasMTU != (version == "1.1.0") {
		t.Errorf("result reports an MTU: %v\n%s", hasMTU, a.Stdout)
	}
	l.reach(bed, neighbour, stub)
	if msg := bed.Fails(plugin.Add, c, cnierr.AlreadyAttached); !strings.Contains(msg, "already exists") {
		t.Errorf("second ADD: %s", msg)
	}
	l.reach(bed, neighbour, stub) // the first survives
	checked := c.With(`"prevResult":` + a.Stdout)
	if semver.AtLeast(version, "0.4.0") {
		bed.Must(plugin.Check, checked)
	}
	bed.Must(plugin.Del, checked)
	bed.Must(plugin.Del, c)
	if semver.AtLeast(version, "0.4.0") {
		bed.Fails(plugin.Check, checked, cnierr.CheckFailed)
	}
	if semver.AtLeast(version, "1.1.0") {
		bed.Must(plugin.Status, c)
		bed.Must(plugin.GC, c.With(`"cni.dev/valid-attachments":[]`))
	}
	bed.detached(stub)
}

func (l Life) reach(bed *Bed, neighbour *netns.NS, stub *StubIPAM) {
	if l.Reach != nil && stub != nil {
		l.Reach(bed, neighbour, stub)
	}
}

// detached fails the test where the sandbox has a link, or an address is held.
func (b *Bed) detached(stub *StubIPAM) {
	b.t.Helper()
	b.In(b.Sandbox, func() {
		if links := b.links(); len(links) > 1 {
			b.t.Errorf("left behind in the sandbox: %q", links)
		}
	})
	if links := b.links(); slices.ContainsFunc(links, func(l string) bool { return strings.HasPrefix(l, "veth") }) {
		b.t.Errorf("left behind: %q", links)
	}
	if stub != nil && stub.Held != 0 {
		b.t.Errorf("%d addresses held", stub.Held)
	}
}

// links returns the names of the links in the thread's namespace.
func (b *Bed) links() (names []string) {
	b.t.Helper()
	all, err := net.Interfaces()
	must(b.t, err)
	for _, l := range all {
		names = append(names, l.Name)
	}
	return names
}

// parts is DEL with whatever part of the attachment gone.
func (l Life) parts(t *testing.T) {
	gone := func(b *Bed, _ *Call) { must(b.t, os.RemoveAll(string(b.Journal()))) }
	breaks := map[string]func(*Bed, *Call){
		"nothing":              func(*Bed, *Call) {},
		"no sandbox path":      func(_ *Bed, c *Call) { c.Netns = NoNetns },
		"sandbox path gone":    func(_ *Bed, c *Call) { c.Netns = "/run/netns/gone" },
		"path is no namespace": func(_ *Bed, c *Call) { c.Netns = "/etc/hostname" },
		"path is the host's":   func(_ *Bed, c *Call) { c.Netns = "/proc/thread-self/ns/net" },
		"interface gone":       func(b *Bed, _ *Call) { b.SandboxIP("link", "del", "eth0") },
		"interface renamed": func(b *Bed, _ *Call) {
			b.In(b.Sandbox, func() { b.IPBatch("link set eth0 down\nlink set eth0 name other") })
		},
		"MAC address changed": func(b *Bed, _ *Call) {
			b.tryInSandbox("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
		},
		"master gone": func(b *Bed, _ *Call) { _, _ = b.Try("ip", "link", "del", "up0") },
		"no routes": func(b *Bed, _ *Call) {
			b.Run("ip", "route", "flush", "table", "main")
			b.SandboxIP("route", "flush", "table", "main")
		},
		"journal gone":      gone,
		"configuration bad": func(_ *Bed, c *Call) { *c = c.With(`"mtu":-1,"vlanId":"x","mode":"sideways","master":7`) },
	}
	// Only the kernel finds a sandbox that neither the call nor the record has a path of.
	if id, err := netns.Identify(netns.Own); err == nil && id.Cookie != 0 { // since Linux 6.18
		breaks["no path leads there"] = hide
	}
	for what, breakIt := range breaks {
		t.Run(what, func(t *testing.T) {
			bed, _ := l.prepared(t)
			stub := DualStack()
			c := l.Call(stub)
			bed.Must(plugin.Add, c)
			breakIt(bed, &c)
			bed.Must(plugin.Del, c)
			bed.detached(stub)
			bed.Must(plugin.Del, c)
		})
	}
}

// hide has neither the call nor the record know where the sandbox is, which goes on
// existing.
func hide(b *Bed, c *Call) {
	c.Netns = "/run/netns/gone"
	b.rewrite(`"netns":"[^"]*"`, `"netns":"/run/netns/gone"`)
}

// tryInSandbox runs a command in the sandbox and reports whether it succeeded.
func (b *Bed) tryInSandbox(name string, args ...string) (ok bool) {
	b.In(b.Sandbox, func() { _, ok = b.Try(name, args...) })
	return ok
}

// retry is the call after an ADD that was killed, or whose clean-up the kernel
// refused, wherever that was: the next ADD or DEL takes the remains away.
func (l Life) retry(t *testing.T) {
	const step = 2
	verbs := []string{plugin.Add, plugin.Del}
	for at, left := 1, true; left; at += step {
		verb := verbs[at/step%2]
		left = false
		t.Run(fmt.Sprintf("%s after change %d", verb, at), func(t *testing.T) { left = l.retryAfter(t, verb, at) })
	}
}

// retryAfter refuses all changes from the one numbered at on. It reports whether
// that was one of the ADD's.
func (l Life) retryAfter(t *testing.T, verb string, at int) bool {
	t.Helper()
	bed, neighbour := l.prepared(t)
	stub := DualStack()
	c := l.Call(stub)
	seen := 0
	c.Gate = func(string) error {
		if seen++; seen >= at {
			return unix.EIO
		}
		return nil
	}
	if bed.Do(plugin.Add, c).Exit == 0 {
		return false
	}
	c.Gate = nil
	bed.Must(verb, c)
	if verb == plugin.Add {
		l.reach(bed, neighbour, stub)
		bed.Must(plugin.Del, c)
	}
	bed.detached(stub)
	return true
}

// spares is DEL with a path that has come to name another container's sandbox,
// as /proc/<pid>/ns/net does: it costs that container nothing.
func (l Life) spares(t *testing.T) {
	bed, _ := l.prepared(t)
	c := l.Call(DualStack())
	bed.Must(plugin.Add, c)
	next := bed.NewSandbox()
	c2 := l.Call(&StubIPAM{Addresses: []string{"10.1.0.3/16 10.1.0.1"}}).As("c2", bed.PathOf(next))
	c2.Conf = strings.Replace(c2.Conf, `"net"`, `"other"`, 1)
	c2.Conf = strings.Replace(c2.Conf, `"vlanId":7`, `"vlanId":8`, 1)
	bed.Must(plugin.Add, c2)

	bed.Must(plugin.Del, c.As("", c2.Netns))
	bed.Must(plugin.Del, l.Call(DualStack()).As("c3", c2.Netns)) // never was
	bed.In(next, func() { bed.Run("ip", "link", "show", "eth0") })
	bed.Must(plugin.Del, c2)
	bed.detached(nil)
}

// takenName is ADD with the name of an interface that is there already.
func (l Life) takenName(t *testing.T) {
	bed, _ := l.prepared(t)
	stub := DualStack()
	bed.SandboxIP("link", "add", "eth0", "type", "bridge")
	before := bed.Snapshot()
	bed.Fails(plugin.Add, l.Call(stub), cnierr.AlreadyAttached)
	if after := bed.Snapshot(); after != before {
		t.Errorf("ADD changed\n%s\nto\n%s", before, after)
	}
	bed.Must(plugin.Del, l.Call(stub))
	bed.SandboxIP("link", "show", "eth0")
	if stub.Held != 0 {
		t.Errorf("%d addresses held", stub.Held)
	}
}

// collects is GC: what is not listed goes, of this network alone.
func (l Life) collects(t *testing.T) {
	for list, want := range map[string]bool{
		`"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]`: true,
		`"cni.dev/valid-attachments":null`:                                   false,
		`"cni.dev/valid-attachments":[]`:                                     false,
		`"x":1`:                                                              true,
	} {
		t.Run(list, func(t *testing.T) {
			bed, _ := l.prepared(t)
			c := l.Call(DualStack())
			bed.Must(plugin.Add, c)
			foreign := c.With(list)
			foreign.Conf = strings.Replace(foreign.Conf, `"net"`, `"foreign"`, 1)
			bed.Must(plugin.GC, foreign)
			bed.SandboxIP("link", "show", "eth0")
			bed.Must(plugin.GC, c.With(list))
			if have := bed.tryInSandbox("ip", "link", "show", "eth0"); have != want {
				t.Errorf("attached after GC: %v", have)
			}
		})
	}
}

// dns is the choice between the configuration's settings and IPAM's.
func (l Life) dns(t *testing.T) {
	for conf, want := range map[string]string{
		``:                                     "192.0.2.53",
		`"dns":{}`:                             "192.0.2.53",
		`"dns":{"nameservers":["192.0.2.54"]}`: "192.0.2.54",
		`"dns":{"domain":"example.org"}`:       "",
		`"dns":{"nameservers":[]}`:             "", // which says that there are none
		`"dns":{"search":[]}`:                  "",
	} {
		bed, _ := l.prepared(t)
		stub := DualStack()
		stub.Raw = `"dns":{"nameservers":["192.0.2.53"]}`
		res := bed.Must(plugin.Add, l.Call(stub, conf))
		if got := strings.Join(res.DNS.Nameservers, " "); got != want {
			t.Errorf("%s: nameservers %q, want %q", conf, got, want)
		}
	}
}

// otherFamily is a list with one set of routes for one stack and for both, as
// kind's: routes of the family that IPAM gave no address of are left out where it
// is IPv6, which is off there.
func (l Life) otherFamily(t *testing.T) {
	for family, stub := range Families() {
		bed, neighbour := l.prepared(t)
		stub.Routes = []string{"0.0.0.0/0", "::/0"}
		c := l.Call(stub)
		a := bed.Do(plugin.Add, c)
		if a.Exit != 0 {
			t.Errorf("%s: %s", family, a.Stdout)
			continue
		}
		if has := strings.Contains(a.Stdout, `"::/0"`); has != (family != "v4") {
			t.Errorf("%s: result has the route ::/0: %v\n%s", family, has, a.Stdout)
		}
		l.reach(bed, neighbour, stub)
		c = c.With(`"prevResult":` + a.Stdout)
		bed.Must(plugin.Check, c)
		bed.Must(plugin.Del, c)
		bed.detached(stub)
	}
}
