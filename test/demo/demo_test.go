package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPicture(t *testing.T) {
	s := scene{
		forwarding: "1",
		rules:      []string{"ip saddr 10.90.0.0/24 masquerade"},
		containers: []container{
			{
				"red", links(t, `[{"ifindex":2,"ifname":"eth0","link_index":5,"addr_info":[{"local":"10.90.0.2","prefixlen":24,"scope":"global"}]}]`)[0],
				[]route{{"default", "10.90.0.1"}, {"10.90.0.0/24", ""}},
			},
			{"blue", links(t, `[{"ifindex":2,"ifname":"eth0","link_index":6,"addr_info":[{"local":"10.90.0.3","prefixlen":24,"scope":"global"}]}]`)[0], nil},
		},
		links: links(t, `[
			{"ifindex":1,"ifname":"lo"},
			{"ifindex":3,"ifname":"up0","addr_info":[{"local":"192.0.2.1","prefixlen":24,"scope":"global"},{"local":"fe80::1","prefixlen":64,"scope":"link"}]},
			{"ifindex":4,"ifname":"cni-nat","linkinfo":{"info_kind":"bridge"},"addr_info":[{"local":"10.90.0.1","prefixlen":24,"scope":"global"}]},
			{"ifindex":5,"ifname":"veth1","master":"cni-nat"},
			{"ifindex":6,"ifname":"veth2","master":"cni-nat"}]`),
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

func links(t *testing.T, doc string) []link {
	t.Helper()
	var l []link
	if err := json.Unmarshal([]byte(doc), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

// What the kernel lacks is named, with what to do about it.
func TestMissingFeaturesAreNamed(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	for _, name := range []string{"ip", "nft"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho Unknown device type >&2\nexit 2\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := features(t.Context())
	if err == nil {
		t.Fatal("nothing is missing")
	}
	for _, want := range []string{"refuses bridges", "modprobe bridge", "modprobe veth", "nft_masq", "Unknown device type"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func TestMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := programs()
	if err == nil || !strings.Contains(err.Error(), "ping is missing: apt-get install iputils-ping") {
		t.Errorf("got %v", err)
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
