package veth

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/boot"
	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

var key = journal.Key{Network: "net", ContainerID: "c1", IfName: "eth0"}

func pair(t *testing.T) (*nltest.Bed, *nl.Pair) {
	t.Helper()
	bed := nltest.New(t)
	p, err := nl.Open(bed.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return bed, p
}

func TestCreate(t *testing.T) {
	bed, p := pair(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	host, sandbox, err := Create(p, Spec{Key: key, MTU: 1400, MAC: mac})
	if err != nil {
		t.Fatal(err)
	}
	out, in := bed.IP("link", "show", host.Name), bed.SandboxIP("link", "show", "eth0")
	for _, want := range []string{"mtu 1400", host.MAC.String()} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in %s", want, out)
		}
	}
	for _, want := range []string{"mtu 1400", mac.String()} {
		if !strings.Contains(in, want) {
			t.Errorf("no %s in %s", want, in)
		}
	}
	l, err := p.Sandbox.LinkByIndex(sandbox.Index)
	if err != nil || l.Name != "eth0" || host.MTU != 1400 || sandbox.MTU != 1400 {
		t.Errorf("%+v %+v %+v %v", host, sandbox, l, err)
	}
	if _, _, err := Create(p, Spec{Key: key}); cnierr.Code(err) != cnierr.AlreadyAttached || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("again: %v", err)
	}
	if bed.SandboxIP("link", "show", "eth0") != in {
		t.Error("the second ADD harmed the first")
	}
	for want := range 2 {
		if found, err := Delete(p.Host, key); found != (want == 0) || err != nil {
			t.Errorf("delete: %v %v", found, err)
		}
	}
}

// Kernels before 6.2 do not answer the creation with the links: the look-up
// gives the same.
func TestCreateWithoutEcho(t *testing.T) {
	bed, p := pair(t)
	host, sandbox := identity(key, 0)
	silent := Spec{Key: key, noEcho: true}
	if err := silent.create(p, &host, &sandbox); err != nil {
		t.Fatal(err)
	}
	l, err := p.Sandbox.LinkByName("eth0")
	if err != nil || l.Index != sandbox.Index || host.Index != l.Parent || host.MTU != 1500 {
		t.Errorf("%+v %+v %+v %v", host, sandbox, l, err)
	}
	if got := bed.IP("-br", "link", "show", host.Name); !strings.Contains(got, host.MAC.String()) {
		t.Error(got)
	}
}

// A name that another link has is passed over; a stale pair of the attachment's
// own makes way; both are deleted by the same key.
func TestNameTaken(t *testing.T) {
	first, _ := identity(key, 0)
	second, _ := identity(key, 1)
	for name, c := range map[string]struct {
		taken []string // ip link add arguments
		want  string
	}{
		"another's":            {[]string{first.Name + " type veth peer name x0"}, second.Name},
		"another kind":         {[]string{first.Name + " address " + first.MAC.String() + " type bridge"}, second.Name},
		"stale":                {[]string{first.Name + " address " + first.MAC.String() + " type veth peer name x0"}, first.Name},
		"stale, of before":     {[]string{first.Name + " address 06" + first.MAC.String()[2:] + " type veth peer name x0"}, first.Name},
		"another's, and stale": {[]string{first.Name + " type bridge", second.Name + " address " + second.MAC.String() + " type veth peer name x0"}, second.Name},
	} {
		t.Run(name, func(t *testing.T) {
			bed, p := pair(t)
			for _, args := range c.taken {
				bed.IP(append([]string{"link", "add"}, strings.Fields(args)...)...)
			}
			host, _, err := Create(p, Spec{Key: key})
			if err != nil || host.Name != c.want {
				t.Fatalf("%s %v, want %s", host.Name, err, c.want)
			}
			if found, err := Delete(p.Host, key); !found || err != nil {
				t.Errorf("delete: %v %v", found, err)
			}
			if found, err := Delete(p.Host, key); found || err != nil {
				t.Errorf("delete: %v %v", found, err)
			}
		})
	}
	t.Run("all", func(t *testing.T) {
		bed, p := pair(t)
		for salt := range byte(salts) {
			e, _ := identity(key, salt)
			bed.IP("link", "add", e.Name, "type", "bridge")
		}
		if _, _, err := Create(p, Spec{Key: key}); err == nil {
			t.Error("no error")
		}
		bed.SandboxIP("link", "show", "lo")
		if out := bed.SandboxIP("-br", "link"); strings.Contains(out, "eth0") {
			t.Errorf("left behind: %s", out)
		}
	})
}

// A host end whose name and MAC address have been changed is found by the index in
// the record, in the network namespace and the boot that the record is of: elsewhere
// the index is another link's. Without a record it is left alone.
func TestRemoveRenamed(t *testing.T) {
	for _, c := range []struct {
		what    string
		change  func(*journal.Record)
		removed bool
	}{
		{"recorded", func(*journal.Record) {}, true},
		{"without links", func(r *journal.Record) { r.Links = nil }, false},
		{"of another host", func(r *journal.Record) { r.HostID.Cookie++ }, false},
		{"of another host with the cookie unknown", func(r *journal.Record) { r.HostID.Cookie, r.HostID.Ino = 0, r.HostID.Ino+1 }, false},
		{"of an earlier boot", func(r *journal.Record) { r.Boot = 1 }, false},
	} {
		bed, p := pair(t)
		host, _, err := Create(p, Spec{Key: key})
		if err != nil {
			t.Fatal(err)
		}
		bed.IP("link", "set", host.Name, "name", "renamed", "address", "02:00:00:00:00:77")
		own, err := netns.Identify(netns.Own)
		if err != nil {
			t.Fatal(err)
		}
		own.Cookie = netns.CookieOf(p.Host.Fd())
		e := &journal.Entry{Found: journal.Done, Record: journal.Record{HostID: own, Boot: boot.ID(), Links: []journal.Link{{Name: host.Name, Index: host.Index}}}}
		c.change(&e.Record)
		call := &plugin.Call{Verb: plugin.Del, ContainerID: "c1", IfName: "eth0", Journal: bed.Journal(), Entry: e}
		call.Conf.Name = "net"
		if err := errors.Join(Remove(p, call), Remove(p, call)); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if got := !strings.Contains(bed.IP("-br", "link"), "renamed"); got != c.removed {
			t.Errorf("%s: removed %t, want %t", c.what, got, c.removed)
		}
	}
}

// Without a record and prevResult, a pair is found by the name of the sandbox's end
// alone. One that is another container's by the alias of the host's end, or by the
// lease of its address, stays: the path leads to that container's sandbox.
func TestRemoveUnrecorded(t *testing.T) {
	for _, c := range []struct {
		what, alias, leased string
		stays               bool
	}{
		{"the reference's", "", "", false},
		{"of another container", "netcleat net c2 eth0", "", true},
		{"of another interface", "netcleat net c1 eth1", "", true},
		{"renamed", "netcleat net c1 eth0", "", false},
		{"of a renamed network", "netcleat old c1 eth0", "", false},
		{"leased to another container", "", "c2", true},
		{"leased to the container", "", "c1", false},
	} {
		bed, p := pair(t)
		bed.Plug(bed.Sandbox, "veth0", "", "10.1.0.2/16")
		if c.alias != "" {
			bed.IP("link", "set", "veth0", "alias", c.alias)
		}
		call := &plugin.Call{Verb: plugin.Del, ContainerID: "c1", IfName: "eth0", Journal: bed.Journal()}
		call.Conf.Name, call.Conf.IPAM.DataDir = "net", bed.Dir
		if c.leased != "" {
			call.Conf.IPAM.DataDir = bed.Lease("10.1.0.2", c.leased)
		}
		if err := Remove(p, call); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if stays := strings.Contains(bed.IP("-br", "link"), "veth0"); stays != c.stays {
			t.Errorf("%s: stays %t, want %t", c.what, stays, c.stays)
		}
	}
}

// A failed creation leaves nothing.
func TestCreateFails(t *testing.T) {
	bed, p := pair(t)
	for _, s := range []Spec{{Key: key, Master: 999}, {Key: key, MTU: 99999}, {Key: journal.Key{IfName: "sixteen-letters-"}}} {
		if _, _, err := Create(p, s); err == nil {
			t.Errorf("%+v: no error", s)
		}
	}
	if out := bed.IP("-br", "link", "show", "type", "veth") + bed.SandboxIP("-br", "link", "show", "type", "veth"); out != "" {
		t.Errorf("left behind: %s", out)
	}
}

func TestAlias(t *testing.T) {
	long := Alias(journal.Key{Network: strings.Repeat("n", 250), ContainerID: strings.Repeat("c", 300), IfName: "eth0"})
	if len(long) != 255 || Alias(key) != "netcleat net c1 eth0" {
		t.Errorf("%d %q", len(long), Alias(key))
	}
}
