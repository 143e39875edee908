package static

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

const head = `{"cniVersion":"1.1.0","name":"net","type":"dummy",`

func call(conf, args string) *plugin.Call {
	c := &plugin.Call{Verb: plugin.Add, Stdin: []byte(conf), Args: args}
	c.Conf.CNIVersion = "1.1.0"
	return c
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, conf, args string
		want             []string // "prefix gateway"
	}{
		{"configured", `"ipam":{"addresses":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"address":"fd00::5/64"}]}}`, "", []string{"10.0.0.5/24 10.0.0.1", "fd00::5/64"}},
		{"no gateway, and said so", `"ipam":{"addresses":[{"address":"10.0.0.5/24","gateway":"0.0.0.0"},{"address":"fd00::5/64","gateway":"::"}]}}`, "", []string{"10.0.0.5/24 0.0.0.0", "fd00::5/64 ::"}},
		{"length with a zero before it", `"ipam":{"addresses":[{"address":"10.0.0.5/08"},{"address":"fd00::5/064"}]}}`, "", []string{"10.0.0.5/8", "fd00::5/64"}},
		{"args join", `"ipam":{"addresses":[{"address":"10.0.0.5/24"}]}}`, "IP=10.1.0.5/24, fd00::5/64", []string{"10.0.0.5/24", "10.1.0.5/24", "fd00::5/64"}},
		{"args gateway reaches configured addresses", `"ipam":{"addresses":[{"address":"10.0.0.5/24"}]}}`, "GATEWAY=10.0.0.1", []string{"10.0.0.5/24 10.0.0.1"}},
		{"args gateway over the configured one", `"ipam":{"addresses":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"}]}}`, "GATEWAY=10.0.0.9,fd00::1", []string{"10.0.0.5/24 10.0.0.9"}},
		{"args.cni replaces", `"ipam":{"addresses":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"}]},"args":{"cni":{"ips":["10.0.0.6/24"]}}}`, "IP=10.9.9.9/24", []string{"10.0.0.6/24"}},
		{"capability before args.cni", `"ipam":{},"args":{"cni":{"ips":["10.0.0.6/24"]}},"runtimeConfig":{"ips":["10.0.0.7/24"]}}`, "GATEWAY=10.0.0.1", []string{"10.0.0.7/24 10.0.0.1"}},
		{"repeated", `"ipam":{"addresses":[{"address":"10.0.0.5/24"}]}}`, "IP=10.0.0.5/24", []string{"10.0.0.5/24"}},
		{"none", `"ipam":{}}`, "", nil},
		{"unknown args ignored", `"ipam":{}}`, "IgnoreUnknown=1;K8S_POD_NAME=x", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conf, err := parse(call(head+tc.conf, tc.args))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range conf.Addresses {
				s := a.Prefix.String()
				if a.Gateway.IsValid() {
					s += " " + a.Gateway.String()
				}
				got = append(got, s)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, conf, args string
		code             uint
		want             string
	}{
		{"no ipam", `"x":1}`, "", cnierr.InvalidConfig, "IPAM config missing 'ipam' key"},
		{"no CIDR", `"ipam":{"addresses":[{"address":"10.0.0.5"}]}}`, "", cnierr.InvalidConfig, "the 'address' field is expected to be in CIDR notation, got: '10.0.0.5'"},
		{"no length", `"ipam":{"addresses":[{"address":"10.0.0.5/"}]}}`, "", cnierr.InvalidConfig, "CIDR"},
		{"too long", `"ipam":{"addresses":[{"address":"10.0.0.5/033"}]}}`, "", cnierr.InvalidConfig, "CIDR"},
		{"empty address", `"ipam":{"addresses":[{}]}}`, "", cnierr.InvalidConfig, "the 'address' field"},
		{"args no CIDR", `"ipam":{}}`, "IP=10.0.0.5", cnierr.InvalidConfig, "the 'ip' field is expected to be in CIDR notation, got: '10.0.0.5'"},
		{"capability no CIDR", `"ipam":{},"runtimeConfig":{"ips":["x"]}}`, "", cnierr.InvalidConfig, "an entry in the 'ips' field is NOT in CIDR notation, got: 'x'"},
		{"args.cni no CIDR", `"ipam":{},"args":{"cni":{"ips":["x"]}}}`, "", cnierr.InvalidConfig, "an entry in the 'ips' field"},
		{"gateway", `"ipam":{"addresses":[{"address":"10.0.0.5/24","gateway":"x"}]}}`, "", cnierr.InvalidConfig, "invalid gateway address: x"},
		{"gateway's family", `"ipam":{"addresses":[{"address":"10.0.0.5/24","gateway":"fd00::1"}]}}`, "", cnierr.InvalidConfig, "invalid gateway address: fd00::1"},
		{"args gateway", `"ipam":{}}`, "GATEWAY=x", cnierr.InvalidConfig, "invalid gateway address: x"},
		{"args unknown", `"ipam":{}}`, "A=b", cnierr.InvalidEnvironment, `ARGS: unknown args ["A=b"]`},
		{"two prefix lengths", `"ipam":{"addresses":[{"address":"10.0.0.5/24"},{"address":"10.0.0.5/16"}]}}`, "", cnierr.InvalidConfig, "10.0.0.5/16 is also given as 10.0.0.5/24"},
		{"mapped gateway", `"ipam":{"addresses":[{"address":"10.0.0.5/24","gateway":"::ffff:10.0.0.1"}]}}`, "", cnierr.InvalidConfig, "invalid gateway address"},
		{"mapped", `"ipam":{"addresses":[{"address":"::ffff:10.0.0.5/120"}]}}`, "", cnierr.InvalidConfig, "CIDR"},
		{"route without dst", `"ipam":{"routes":[{"gw":"10.0.0.1"}]}}`, "", cnierr.InvalidConfig, "route 0: no dst"},
		{"route null", `"ipam":{"routes":[null]}}`, "", cnierr.InvalidConfig, "route 0: no dst"},
		{"route's families", `"ipam":{"routes":[{"dst":"::/0","gw":"10.0.0.1"}]}}`, "", cnierr.InvalidConfig, "different families"},
		{"wrong type", `"ipam":{"addresses":7}}`, "", cnierr.DecodingFailure, "failed to load netconf"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parse(call(head+tc.conf, tc.args))
			if err == nil || cnierr.Code(err) != tc.code || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("code %d, error %v; want code %d, %q", cnierr.Code(err), err, tc.code, tc.want)
			}
		})
	}
}

func TestOldVersionsHoldOneAddressOfAFamily(t *testing.T) {
	c := call(head+`"ipam":{"addresses":[{"address":"10.0.0.5/24"},{"address":"10.0.0.6/24"}]}}`, "")
	c.Conf.CNIVersion = "0.2.0"
	if _, err := parse(c); cnierr.Code(err) != cnierr.InvalidConfig || !strings.Contains(err.Error(), "does not support more than 1 address per family") {
		t.Errorf("error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "static") {
		f.Add(conf, "")
	}
	f.Add(head+`"ipam":{"addresses":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"}]}}`, "IP=10.0.0.6/24;GATEWAY=10.0.0.1")
	f.Add(head+`"ipam":{"routes":[{"dst":"::/0"}]},"runtimeConfig":{"ips":["fd00::1/64"]}}`, "")
	f.Fuzz(func(t *testing.T, conf, args string) {
		got, err := parse(call(conf, args))
		if err != nil {
			if cnierr.Code(err) == cnierr.Internal {
				t.Errorf("error without a code: %v", err)
			}
			return
		}
		for _, a := range got.Addresses {
			if a.result().Address.String() != a.Prefix.String() {
				t.Errorf("address %s becomes %s", a.Prefix, &a.result().Address)
			}
		}
	})
}

func TestVerbs(t *testing.T) {
	table := plugin.Table{"static": Plugin}
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			bed := nltest.New(t)
			head := `{"cniVersion":"` + version + `","name":"net","type":"dummy",`
			c := nltest.Call{Table: table, Plugin: "static", Conf: head + `"ipam":{"type":"static","addresses":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"address":"fd00::5/64"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["9.9.9.9"]}}}`}
			res := bed.Must(plugin.Add, c)
			if len(res.IPs) != 2 || res.IPs[0].Gateway.String() != "10.0.0.1" || len(res.Routes) != 1 || res.DNS.Nameservers[0] != "9.9.9.9" {
				t.Errorf("result %+v", res)
			}
			bed.Must(plugin.Del, c)
			bed.Must(plugin.Del, nltest.Call{Table: table, Plugin: "static", Conf: head + `"ipam":7}`, Netns: nltest.NoNetns})
			if version == "1.1.0" {
				bed.Must(plugin.Status, c)
				bed.Must(plugin.GC, c)
			}
		})
	}
}

func TestNoAddressIsRefused(t *testing.T) {
	bed := nltest.New(t)
	c := nltest.Call{Table: plugin.Table{"static": Plugin}, Plugin: "static", Conf: head + `"ipam":{"type":"static"}}`}
	if msg := bed.Fails(plugin.Add, c, cnierr.InvalidConfig); !strings.Contains(msg, "no address") {
		t.Error(msg)
	}
	bed.Must(plugin.Status, c) // the runtime may name them later
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name, prev string
		code       uint
	}{
		{"as handed out", `{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"address":"fd00::5/64"}]}`, 0},
		{"others beside", `{"cniVersion":"1.1.0","ips":[{"address":"10.9.0.5/24"},{"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"address":"fd00::5/64","gateway":"fd00::1"}]}`, 0},
		{"address missing", `{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"}]}`, cnierr.CheckFailed},
		{"other prefix length", `{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/16","gateway":"10.0.0.1"},{"address":"fd00::5/64"}]}`, cnierr.CheckFailed},
		{"other gateway", `{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/24","gateway":"10.0.0.2"},{"address":"fd00::5/64"}]}`, cnierr.CheckFailed},
		{"no gateway", `{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/24"},{"address":"fd00::5/64"}]}`, cnierr.CheckFailed},
		{"no prevResult", `null`, cnierr.InvalidConfig},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bed := nltest.New(t)
			c := nltest.Call{Table: plugin.Table{"static": Plugin}, Plugin: "static", Conf: head + `"prevResult":` + tc.prev + `,"ipam":{"type":"static","addresses":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"address":"fd00::5/64"}]}}`}
			if tc.code == 0 {
				bed.Must(plugin.Check, c)
				return
			}
			bed.Fails(plugin.Check, c, tc.code)
		})
	}
}
