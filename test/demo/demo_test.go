package main

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

func TestPicture(t *testing.T) {
	prefixes := func(all ...string) (list []netip.Prefix) {
		for _, s := range all {
			list = append(list, netip.MustParsePrefix(s))
		}
		return list
	}
	subnet, gateway := prefixes("10.90.0.0/24")[0], netip.MustParseAddr("10.90.0.1")
	s := scene{
		forwarding: "1",
		rules:      []string{"ip saddr 10.90.0.0/24 masquerade"},
		containers: []container{
			{
				"red",
				link{&nl.Link{Index: 2, Name: "eth0", Parent: 5}, prefixes("10.90.0.2/24")},
				[]nl.Route{{Dst: prefixes("0.0.0.0/0")[0], Gateway: gateway}, {Dst: subnet}, {Dst: prefixes("fe80::/64")[0]}},
			},
			{"blue", link{&nl.Link{Index: 2, Name: "eth0", Parent: 6}, prefixes("10.90.0.3/24")}, nil},
		},
		links: []link{
			{&nl.Link{Index: 1, Name: "lo"}, nil},
			{&nl.Link{Index: 3, Name: "up0"}, prefixes("192.0.2.1/24", "fe80::1/64")},
			{&nl.Link{Index: 4, Name: "cni-nat", Kind: "bridge"}, prefixes("10.90.0.1/24")},
			{&nl.Link{Index: 5, Name: "veth1", Master: 4}, nil},
			{&nl.Link{Index: 6, Name: "veth2", Master: 4}, nil},
		},
	}
	want := `  world 192.0.2.2
   ║
  up0 #3  192.0.2.1/24
   │
   │  forwarding 1
   │  NAT: ip saddr 10.90.0.0/24 masquerade
   │
  cni-nat #4  bridge  10.90.0.1/24
   ├── veth1 #5 ═══ eth0 #2 in red  10.90.0.2/24
   │   routes: default via 10.90.0.1, 10.90.0.0/24
   └── veth2 #6 ═══ eth0 #2 in blue  10.90.0.3/24
       routes: 
`
	if diff := cmp.Diff(want, s.draw()); diff != "" {
		t.Error(diff)
	}
}

// What the kernel lacks is named, with what to do about it.
func TestMissingFeaturesAreNamed(t *testing.T) {
	err := missing([]feature{
		{"bridges", "bridge", func() error { return unix.EOPNOTSUPP }},
		{"veth pairs", "veth", func() error { return nil }},
	})
	if err == nil {
		t.Fatal("nothing is missing")
	}
	for _, want := range []string{"refuses bridges", "modprobe bridge", unix.EOPNOTSUPP.Error()} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "veth") {
		t.Errorf("veth is not missing: %v", err)
	}
}

// The demo calls no program but those that were built: a fresh machine has neither
// nft nor ping.
func TestNeedsNoPrograms(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces take root: run it as root (make test)")
	}
	dir := t.TempDir()
	for name, pkg := range map[string]string{"demo": ".", "netcleat": "../../cmd/netcleat", "cni": "../../cmd/cni"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	cmd := exec.Command(filepath.Join(dir, "demo"), "-conflist", "../../conflist-examples/bridge-nat.conflist", "-netcleat", filepath.Join(dir, "netcleat"))
	cmd.Env = []string{"PATH=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Nothing is left") || !strings.Contains(string(out), "masquerade") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRulesThatMasquerade(t *testing.T) {
	for line, want := range map[string]bool{
		"\t\tip saddr 10.90.0.0/24 masquerade comment \"net: nat\"\n": true,
		"\t\tip daddr != 224.0.0.0/4 counter masquerade \n":           true,
		"table inet cni_plugins_masquerade {\n":                       false,
		"\t\tcounter comment \"will masquerade\"\n":                   false,
	} {
		if got := masquerades(line); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}
