package sbr

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func call(keys string) *plugin.Call {
	return &plugin.Call{Verb: plugin.Add, IfName: "eth0", Stdin: []byte(`{"cniVersion":"1.1.0","name":"net","type":"sbr",` + keys + `}`)}
}

func TestParse(t *testing.T) {
	gw4, gw6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	for keys, want := range map[string]config{
		`"x":1`:                              {},
		`"table":5000`:                       {Table: 5000},
		`"addSourceHints":true`:              {SourceHints: true},
		`"gateways":[]`:                      {},
		`"gateways":["10.0.0.1"]`:            {Gateway4: gw4},
		`"gateways":["fd00::1","10.0.0.1"]`:  {Gateway4: gw4, Gateway6: gw6},
		`"table":4294967295,"gateways":null`: {Table: 4294967295},
		`"table":null,"addSourceHints":false,"gateways":["fe80::1"]`: {Gateway6: netip.MustParseAddr("fe80::1")},
	} {
		if got, err := parse(call(keys)); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", keys, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct {
		keys string
		code uint
		want string
	}{
		{`"table":0`, cnierr.InvalidConfig, "table 0"},
		{`"table":-1`, cnierr.InvalidConfig, "table -1"},
		{`"table":4294967296`, cnierr.InvalidConfig, "table 4294967296"},
		{`"table":"x"`, cnierr.DecodingFailure, "failed to load netconf"},
		{`"gateways":["10.0.0.1","fd00::1","10.0.0.2"]`, cnierr.InvalidConfig, "gateways list cannot contain more than 2 entries (one IPv4, one IPv6)"},
		{`"gateways":["x"]`, cnierr.InvalidConfig, "invalid static gateway IP address: x"},
		{`"gateways":["::ffff:10.0.0.1"]`, cnierr.InvalidConfig, "invalid static gateway IP address: ::ffff:10.0.0.1"},
		{`"gateways":["0.0.0.0"]`, cnierr.InvalidConfig, "invalid static gateway IP address: 0.0.0.0"},
		{`"gateways":["10.0.0.1","10.0.0.2"]`, cnierr.InvalidConfig, "gateways list contains multiple IPv4 addresses: 10.0.0.1 and 10.0.0.2"},
		{`"gateways":["fd00::1","fd00::2"]`, cnierr.InvalidConfig, "gateways list contains multiple IPv6 addresses: fd00::1 and fd00::2"},
	} {
		_, err := parse(call(tc.keys))
		if err == nil || cnierr.Code(err) != tc.code || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: code %d, error %v; want code %d, %q", tc.keys, cnierr.Code(err), err, tc.code, tc.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, tc := range []struct {
		prev string
		want string
		code uint
	}{
		{`{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"address":"fd00::5/64"}]}`, "10.0.0.5/24 10.0.0.1, fd00::5/64 invalid IP", 0},
		{`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0"},{"name":"eth0","sandbox":"/x"},{"name":"eth1","sandbox":"/x"}],"ips":[{"address":"10.0.0.5/24","interface":0},{"address":"10.0.0.6/24","interface":1},{"address":"10.0.0.7/24","interface":2},{"address":"10.0.0.8/24","interface":9}]}`, "10.0.0.6/24 invalid IP, 10.0.0.8/24 invalid IP", 0},
		{`{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.5/24","gateway":"10.0.0.1"}}`, "10.0.0.5/24 10.0.0.1", 0},
		{`{"cniVersion":"1.0.0"}`, "", cnierr.InvalidConfig},
		{`null`, "", cnierr.InvalidConfig},
		{`{"cniVersion":"1.0.0","ips":7}`, "", cnierr.DecodingFailure},
	} {
		c := call(`"x":1`)
		c.Conf.PrevResult = []byte(tc.prev)
		all, err := addresses(c)
		var got []string
		for _, a := range all {
			got = append(got, a.Prefix.String()+" "+a.Gateway.String())
		}
		if (err != nil) != (tc.code != 0) || err != nil && cnierr.Code(err) != tc.code || strings.Join(got, ", ") != tc.want {
			t.Errorf("%s:\n%s, %v; want %s, code %d", tc.prev, strings.Join(got, ", "), err, tc.want, tc.code)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "sbr") {
		f.Add(conf[1:len(conf)-1], "{}")
	}
	f.Add(`"table":7,"gateways":["10.0.0.1","fd00::1"],"addSourceHints":true`, `{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.5/24"}]}`)
	f.Fuzz(func(t *testing.T, keys, prev string) {
		c := call(keys)
		conf, err := parse(c)
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("error without a code: %v", err)
		}
		c.Conf.PrevResult = []byte(prev)
		addrs, err := addresses(c)
		if err != nil {
			if cnierr.Code(err) == cnierr.Internal {
				t.Errorf("error without a code: %v", err)
			}
			return
		}
		if st := conf.plan(1, addrs, nil, usedTables(nil, nil)); len(st.Rules) != len(addrs) {
			t.Errorf("%d rules for %d addresses", len(st.Rules), len(addrs))
		}
	})
}
