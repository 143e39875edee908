package hostlocal_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/ranges"
)

// TestErrorTexts keeps the reference's texts, which callers look for.
func TestErrorTexts(t *testing.T) {
	bed := nltest.New(t)
	for _, c := range []struct {
		ipam string
		code uint
		text string
	}{
		{`"ranges":[]`, 7, "no IP ranges specified"},
		{`"ranges":[[]]`, 7, "invalid range set 0: empty range set"},
		{`"ranges":[[{}]]`, 7, "invalid range set 0: "},
		{`"subnet":"nonsense"`, 7, "invalid CIDR address: nonsense"},
		{`"subnet":"10.0.0.0/31"`, 7, "Network 10.0.0.0/31 too small to allocate from"},
		{`"subnet":"fd00::/127"`, 7, "Network fd00::/127 too small to allocate from"},
		{`"subnet":"10.0.0.1/24"`, 7, "Network has host bits set. For a subnet mask of length 24 the network address is 10.0.0.0"},
		{`"subnet":"10.0.0.0/24","rangeStart":"10.0.1.2"`, 7, "RangeStart 10.0.1.2 not in network 10.0.0.0/24"},
		{`"subnet":"10.0.0.0/24","rangeEnd":"10.0.1.2"`, 7, "RangeEnd 10.0.1.2 not in network 10.0.0.0/24"},
		{`"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"`, 7, "not in network 10.0.0.0/24"},
		{`"subnet":"10.0.0.0/24","rangeStart":"fd00::1"`, 7, "RangeStart fd00::1 not in network 10.0.0.0/24"},
		{`"subnet":"10.0.0.0/24","gateway":"x"`, 7, "invalid IP address: x"},
		{`"subnet":7`, 6, "failed to load netconf"},
		{`"ranges":[[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]]`, 7, "mixed address families"},
		{`"ranges":[[{"subnet":"10.0.0.0/24"},{"subnet":"10.0.0.0/25"}]]`, 7, "subnets 10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.0.126 overlap"},
		{`"ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.0.0.0/25"}]]`, 7, "range set 0 overlaps with 1"},
		{`"subnet":"10.0.0.0/24","resolvConf":"/nonexistent"`, 5, "open /nonexistent: no such file"},
	} {
		msg := bed.Fails(plugin.Add, call("a", c.ipam), c.code)
		if !strings.Contains(msg, c.text) {
			t.Errorf("%s\nwant %q\n got %q", c.ipam, c.text, msg)
		}
		bed.Must(plugin.Del, call("a", c.ipam))
	}
	noIPAM := call("a", "")
	noIPAM.Conf = `{"cniVersion":"1.1.0","name":"net","type":"bridge"}`
	want(t, bed.Fails(plugin.Add, noIPAM, 7), "IPAM config missing 'ipam' key")
	old := call("a", `"ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.0.1.0/24"}]]`)
	old.Conf = strings.Replace(old.Conf, "1.1.0", "0.2.0", 1)
	want(t, bed.Fails(plugin.Add, old, 7), "CNI version 0.2.0 does not support more than 1 address per family")
}

// TestRequests asks for addresses in all ways.
func TestRequests(t *testing.T) {
	const (
		set     = `"subnet":"10.1.2.0/24"`
		sets    = `"ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"fd00::/64"}]]`
		args    = `,"args":{"cni":{"ips":[%s]}}`
		runtime = `,"runtimeConfig":{"ips":[%s]}`
	)
	for _, c := range []struct {
		name, ipam, args, more, want string
		code                         uint
	}{
		{"CNI_ARGS", set, "IP=10.1.2.9", "", "10.1.2.9/24 via 10.1.2.1", 0},
		{"CNI_ARGS with prefix", set, "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.1.2.9/16", "", "10.1.2.9/24 via 10.1.2.1", 0},
		{"CNI_ARGS empty", set, "IP=", "", "10.1.2.2/24 via 10.1.2.1", 0},
		{"CNI_ARGS nonsense", set, "IP=x", "", "invalid IP address x", 4},
		{"CNI_ARGS unknown", set, "A=b", "", `ARGS: unknown args ["A=b"]`, 4},
		{"args", set, "", fmt.Sprintf(args, `"10.1.2.9/24"`), "10.1.2.9/24 via 10.1.2.1", 0},
		{"args before CNI_ARGS", set, "IP=10.1.2.8", fmt.Sprintf(args, `"10.1.2.9"`), "10.1.2.9/24 via 10.1.2.1", 0},
		{"args null", set, "", fmt.Sprintf(args, `null`), "cannot understand ip", 7},
		{"args is null", set, "", `,"args":null`, "10.1.2.2/24 via 10.1.2.1", 0},
		{"runtimeConfig", sets, "", fmt.Sprintf(runtime, `"fd00::9","10.1.2.9"`), "10.1.2.9/24 via 10.1.2.1, fd00::9/64 via fd00::1", 0},
		{"one of two", sets, "", fmt.Sprintf(runtime, `"fd00::9"`), "10.1.2.2/24 via 10.1.2.1, fd00::9/64 via fd00::1", 0},
		{"same twice", set, "IP=10.1.2.9", fmt.Sprintf(runtime, `"10.1.2.9/24"`), "10.1.2.9/24 via 10.1.2.1", 0},
		{"mapped", set, "", fmt.Sprintf(runtime, `"::ffff:10.1.2.9"`), "invalid IP address ::ffff:10.1.2.9", 7},
		{"mapped subnet", `"subnet":"::ffff:10.1.2.0/120"`, "", "", "invalid CIDR address: ::ffff:10.1.2.0/120", 7},
		{"mapped gateway", `"subnet":"10.1.2.0/24","gateway":"::ffff:10.1.2.1"`, "", "", "invalid IP address: ::ffff:10.1.2.1", 7},
		{"two of one set", set, "", fmt.Sprintf(runtime, `"10.1.2.8","10.1.2.9"`), "failed to allocate all requested IPs: 10.1.2.9", 7},
		{"of no set", set, "IP=10.9.9.9", "", "failed to allocate all requested IPs: 10.9.9.9", 7},
		{"gateway", set, "IP=10.1.2.1", "", "requested ip 10.1.2.1 is subnet's gateway", 7},
		{"taken", set, "IP=10.1.2.200", "", "requested IP address 10.1.2.200 is not available in range set 10.1.2.1-10.1.2.254", 103},
		{"ipRanges", set, "", `,"runtimeConfig":{"ipRanges":[[{"subnet":"10.7.0.0/24","gateway":"10.7.0.254"}]]}`, "10.7.0.1/24 via 10.7.0.254, 10.1.2.2/24 via 10.1.2.1", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bed := nltest.New(t)
			k := call("other", set)
			k.Args = "IP=10.1.2.200"
			bed.Must(plugin.Add, k)
			must(t, os.Remove(filepath.Join(bed.Dir, "leases/net/last_reserved_ip.0")))
			k = call("a", c.ipam)
			k.Args, k.Conf = c.args, strings.TrimSuffix(k.Conf, "}")+c.more+"}"
			if c.code == 0 {
				want(t, addrs(bed, k), c.want)
			} else if msg := bed.Fails(plugin.Add, k, c.code); !strings.Contains(msg, c.want) {
				t.Errorf("want %q\n got %q", c.want, msg)
			}
			left, err := filepath.Glob(filepath.Join(bed.Dir, "leases/net/[0-9f]*"))
			must(t, err)
			if c.code != 0 && len(left) != 1 {
				t.Errorf("a failed ADD left %v", left)
			}
			k.Args = "nonsense"
			bed.Must(plugin.Del, k)
		})
	}
}

// TestSecondRequestIsRefused closes the way round the guard against a second
// address.
func TestSecondRequestIsRefused(t *testing.T) {
	bed := nltest.New(t)
	bed.Must(plugin.Add, call("a", subnet))
	k := call("a", subnet)
	k.Args = "IP=10.1.2.77"
	bed.Fails(plugin.Add, k, 100)
	bed.Must(plugin.Check, call("a", subnet))
}

func TestResultHasRoutesAndDNS(t *testing.T) {
	bed := nltest.New(t)
	resolv := filepath.Join(bed.Dir, "resolv.conf")
	must(t, os.WriteFile(resolv, []byte("# c\nnameserver 1.1.1.1\nnameserver ::1\ndomain d\nsearch a b\noptions x\nodd\n"), 0o600))
	res := bed.Must(plugin.Add, call("a", subnet+`,"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.0.0.0/8","gw":"10.1.2.3","mtu":1400}],"resolvConf":"`+resolv+`"`))
	b, err := json.Marshal(struct{ Routes, DNS any }{res.Routes, res.DNS})
	must(t, err)
	want(t, string(b), `{"Routes":[{"dst":"0.0.0.0/0"},{"dst":"10.0.0.0/8","gw":"10.1.2.3","mtu":1400}],"DNS":{"nameservers":["1.1.1.1","::1"],"domain":"d","search":["a","b"],"options":["x"]}}`)
	must(t, os.Remove(resolv))
	bed.Must(plugin.Del, call("a", subnet+`,"resolvConf":"`+resolv+`"`))
}

// TestRemovingNeedsNoRightConfiguration gives DEL and GC one that is broken in
// every other place.
func TestRemovingNeedsNoRightConfiguration(t *testing.T) {
	bed := nltest.New(t)
	broken := `"subnet":7,"ranges":"x","routes":1,"resolvConf":"/nonexistent","reclaim":"maybe"`
	bed.Must(plugin.Add, call("a", subnet))
	bed.Must(plugin.Del, call("a", broken))
	bed.Fails(plugin.Check, call("a", subnet), 102)
	bed.Must(plugin.Add, call("b", subnet))
	gc := call("b", broken)
	gc.Conf = strings.TrimSuffix(gc.Conf, "}") + `,"cni.dev/valid-attachments":null}`
	bed.Must(plugin.GC, gc)
	bed.Fails(plugin.Check, call("b", subnet), 102)
}

func FuzzParse(f *testing.F) {
	for _, example := range nltest.Examples(f, "host-local") {
		f.Add(example, "")
	}
	for _, ipam := range []string{subnet, `"ranges":[[{"subnet":"fd00::/64","rangeStart":"fd00::5"}]]`, `"subnet":"10.0.0.0/8","gateway":null`, `"ranges":[null,[null]]`} {
		f.Add(conf(ipam), "IP=10.1.2.3")
	}
	f.Fuzz(func(t *testing.T, conf, args string) {
		env := map[string]string{"CNI_COMMAND": "STATUS", "CNI_PATH": "/"}
		if len(args)%2 == 0 {
			env = map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "a", "CNI_IFNAME": "eth0", "CNI_NETNS": "/nonexistent", "CNI_PATH": "/", "CNI_ARGS": args}
		}
		// Where it parses, it must not get beyond this file.
		dir := filepath.Join(t.TempDir(), "file")
		must(t, os.WriteFile(dir, nil, 0o600))
		var m map[string]json.RawMessage
		if json.Unmarshal([]byte(conf), &m) != nil {
			return
		}
		var ipam map[string]json.RawMessage
		if json.Unmarshal(m["ipam"], &ipam) == nil && ipam != nil {
			ipam["dataDir"], _ = json.Marshal(dir)
			m["ipam"], _ = json.Marshal(ipam)
		}
		b, err := json.Marshal(m)
		must(t, err)
		var out strings.Builder
		p := plugin.Process{Name: "host-local", Getenv: func(k string) string { return env[k] }, Stdin: strings.NewReader(string(b)), Stdout: &out, Stderr: &strings.Builder{}}
		p.Run(t.Context(), table)
		if strings.Contains(out.String(), "panic") || strings.Contains(out.String(), `"code": 999`) {
			t.Errorf("%s\n%s", b, out.String())
		}
	})
}

// A range that is read alone is what it is in a configuration.
func TestReadRange(t *testing.T) {
	for raw, want := range map[string]string{
		`{"subnet":"10.1.2.0/24"}`: "10.1.2.0/24 10.1.2.1 10.1.2.254 10.1.2.1",
		`{"subnet":"10.1.2.0/24","rangeStart":"10.1.2.9","gateway":"10.1.2.8"}`: "10.1.2.0/24 10.1.2.9 10.1.2.254 10.1.2.8",
		`{"subnet":"fd00::/126","rangeEnd":"fd00::2"}`:                          "fd00::/126 fd00::1 fd00::2 fd00::1",
		`{}`:                       "IP <nil> not v4 nor v6: a range needs a subnet",
		`{"subnet":"10.1.2.3/24"}`: "Network has host bits set. For a subnet mask of length 24 the network address is 10.1.2.0",
		`7`:                        "json: cannot unmarshal number into Go value of type ranges.addrRange",
	} {
		r, err := ranges.ReadRange([]byte(raw))
		got := fmt.Sprint(r.Subnet, " ", r.First, " ", r.Last, " ", r.Gateway)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", raw, got, want)
		}
	}
}

// Leases among the records would be taken for damaged ones of a network.
func TestDataDirAmongTheRecords(t *testing.T) {
	for dir, refused := range map[string]bool{"/run/netcleat": true, "/run/../run/netcleat/x/": true, "/run/netcleat2": false, "/run": false} {
		c := &plugin.Call{Verb: plugin.Add, Journal: "/run/netcleat"}
		if err := c.CheckDataDir(dir); (err != nil) != refused {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
