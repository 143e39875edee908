package overlay

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func defined() Definition {
	return Definition{
		Name: "web", VNI: 4096, Subnets: []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16"), netip.MustParsePrefix("fd00:100::/64")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.100.0.1"), netip.MustParseAddr("fd00:100::1")},
	}
}

// What is written is read as it was.
func TestDefinition(t *testing.T) {
	d := defined()
	text, err := d.Text()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseDefinition("web", text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Text()
	if err != nil || again != text {
		t.Errorf("%s, then %s: %v", text, again, err)
	}
}

// Whoever writes to etcd can say no more than what a definition holds.
func TestDefinitionRefuses(t *testing.T) {
	const good = `{"vni":4096,"subnets":["10.100.0.0/16"],"gateways":["10.100.0.1"]}`
	if _, err := ParseDefinition("web", good); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`"vni":4096`, `"vni":1`},
		{`"vni":4096`, `"vni":16777216`},
		{`"vni":4096`, `"vni":4096,"plugins":[{"type":"evil"}]`},
		{`"vni":4096`, `"vni":4096,"mtu":1`},
		{`10.100.0.0/16`, `10.100.0.1/16`},
		{`10.100.0.0/16`, `0.0.0.0/0`},
		{`10.100.0.0/16`, `224.0.0.0/8`},
		{`10.100.0.0/16`, `::ffff:10.0.0.0/112`},
		{`"10.100.0.0/16"`, `"10.100.0.0/16","10.101.0.0/16"`},
		{`["10.100.0.1"]`, `[]`},
		{`10.100.0.1`, `10.101.0.1`},
		{`10.100.0.1`, `10.100.0.0`},
		{`}`, strings.Repeat(" ", maxDefinition) + "}"},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		if d, err := ParseDefinition("web", text); err == nil {
			t.Errorf("%.200s: accepted as %+v", text, d)
		}
	}
	for _, name := range []string{"", "../x", "a/b", ".a", "a b", strings.Repeat("a", 201)} {
		if _, err := ParseDefinition(name, good); err == nil {
			t.Errorf("name %.20q: accepted", name)
		}
	}
}

func FuzzDefinition(f *testing.F) {
	f.Add(`{"vni":4096,"subnets":["10.100.0.0/16"],"gateways":["10.100.0.1"],"mtu":1400,"internal":true,"names":true}`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDefinition("web", text)
		if err != nil {
			return
		}
		if _, err := d.Conflist(Underlay{Dev: "eth0"}); err != nil {
			t.Error(err)
		}
		if n := d.wanted(); len(n) > 0 {
			t.Error(n)
		}
	})
}

// wanted are the plugins that a definition may make a host run, beyond those known.
func (d *Definition) wanted() (unknown []string) {
	text, err := d.Conflist(Underlay{Dev: "eth0"})
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(string(text)) {
		if typ, ok := strings.CutPrefix(strings.TrimSpace(line), `"type": "`); ok {
			typ = strings.TrimRight(typ, `",`)
			if !strings.Contains("bridge cluster-local portmap firewall tuning dnsname", typ) {
				unknown = append(unknown, typ)
			}
		}
	}
	return unknown
}

// A file that is not the cluster's is left alone, and none becomes the first.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	d, u := defined(), Underlay{Dev: "eth0"}
	if err := d.Write(t.Context(), dir, u); err == nil || !strings.Contains(err.Error(), "would be the first file") {
		t.Error(err)
	}
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("zz.conflist", "{}")
	if err := d.Write(t.Context(), dir, u); err == nil {
		t.Error("it became the first")
	}
	put("10-a.conflist", "{}")
	path := filepath.Join(dir, "netcleat-web.conflist")
	put("netcleat-web.conflist", `{"netcleat.dev/made-by":"network create"}`)
	if err := d.Write(t.Context(), dir, u); err == nil || !strings.Contains(err.Error(), "is not the cluster's") {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(t.Context(), dir, u); err != nil {
		t.Fatal(err)
	}
	want, err := d.Conflist(u)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(want) || !Made(got) {
		t.Errorf("%v: %s", err, got)
	}
	d.MTU = 1400
	if err := d.Write(t.Context(), dir, u); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !strings.Contains(string(got), `"mtu": 1400`) {
		t.Errorf("%v: %s", err, got)
	}
}

// A network with names has dnsname, and the host's address also where it is internal, as
// network create makes a bridge network.
func TestConflistNames(t *testing.T) {
	d := defined()
	d.Names, d.Internal = true, true
	text, err := d.Conflist(Underlay{Dev: "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	for want, n := range map[string]int{`"type": "dnsname"`: 1, `"domainName": "dns.web"`: 1, `"aliases": true`: 1, `"isGateway": true`: 1, `"routes"`: 0} {
		if got := strings.Count(string(text), want); got != n {
			t.Errorf("%s: %d times, want %d, in %s", want, got, n, text)
		}
	}
}
