package vrf

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func call(keys string) *plugin.Call {
	return &plugin.Call{Verb: plugin.Add, IfName: "eth0", Stdin: []byte(`{"cniVersion":"1.1.0","name":"net","type":"vrf",` + keys + `}`)}
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		keys string
		want config
		code uint
		msg  string
	}{
		{`"vrfname":"blue"`, config{Name: "blue"}, 0, ""},
		{`"vrfname":"blue","table":4294967295`, config{Name: "blue", Table: 4294967295}, 0, ""},
		{`"x":1`, config{}, cnierr.InvalidConfig, "configuration is expected to have a valid vrf name"},
		{`"vrfname":"a name that is too long"`, config{}, cnierr.InvalidConfig, "valid vrf name"},
		{`"vrfname":"a/b"`, config{}, cnierr.InvalidConfig, "valid vrf name"},
		{`"vrfname":"vrf%d"`, config{}, cnierr.InvalidConfig, "valid vrf name"},
		{`"vrfname":".."`, config{}, cnierr.InvalidConfig, "valid vrf name"},
		{`"vrfname":"eth0"`, config{}, cnierr.InvalidConfig, "valid vrf name"},
		{`"vrfname":"blue","table":-1`, config{}, cnierr.DecodingFailure, "failed to load netconf"},
		{`"vrfname":7`, config{}, cnierr.DecodingFailure, "failed to load netconf"},
	} {
		got, err := parse(call(tc.keys))
		if tc.code == 0 {
			if err != nil || got != tc.want {
				t.Errorf("%s: %+v, %v; want %+v", tc.keys, got, err, tc.want)
			}
			continue
		}
		if err == nil || cnierr.Code(err) != tc.code || !strings.Contains(err.Error(), tc.msg) {
			t.Errorf("%s: code %d, error %v; want code %d, %q", tc.keys, cnierr.Code(err), err, tc.code, tc.msg)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "vrf") {
		f.Add(conf[1 : len(conf)-1])
	}
	f.Add(`"vrfname":"blue","table":7`)
	f.Fuzz(func(t *testing.T, keys string) {
		conf, err := parse(call(keys))
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("error without a code: %v", err)
		}
		if err == nil && (len(conf.Name) > 15 || strings.ContainsAny(conf.Name, "/ \n\x00")) {
			t.Errorf("%q is no interface's name", conf.Name)
		}
	})
}

func TestFreeTable(t *testing.T) {
	vrf := func(table byte) *nl.Link {
		return &nl.Link{Kind: kind, Info: []byte{8, 0, attrTable, 0, table, 0, 0, 0}}
	}
	if got := freeTable(nil, nil, nil); got != 1 {
		t.Errorf("table %d, want 1", got)
	}
	got := freeTable([]*nl.Link{vrf(1), {Kind: "veth"}}, []nl.Rule{{Table: 2}}, []nl.Route{{Table: 3}, {Table: 254}})
	if got != 4 {
		t.Errorf("table %d, want 4: 1 is a VRF's, 2 a rule's, 3 a route's", got)
	}
	var routes []nl.Route
	for table := uint32(1); table <= 99; table++ {
		routes = append(routes, nl.Route{Table: table})
	}
	if got := freeTable(nil, nil, routes); got != 1000 {
		t.Errorf("table %d, want 1000: those from 100 are sbr's", got)
	}
}

func TestCarriedRoutes(t *testing.T) {
	route := func(dst string, r nl.Route) nl.Route {
		r.Dst, r.Type = netip.MustParsePrefix(dst), unix.RTN_UNICAST
		if r.Index == 0 {
			r.Index = 5
		}
		if r.Table == 0 {
			r.Table = unix.RT_TABLE_MAIN
		}
		return r
	}
	gw := netip.MustParseAddr("10.0.0.1")
	all := []nl.Route{
		route("0.0.0.0/0", nl.Route{Gateway: gw, Protocol: unix.RTPROT_BOOT}),
		route("10.0.0.0/24", nl.Route{Protocol: unix.RTPROT_KERNEL}),
		route("172.17.0.0/16", nl.Route{Scope: unix.RT_SCOPE_LINK, Protocol: unix.RTPROT_BOOT}),
		route("10.8.0.0/16", nl.Route{Index: 6}),
		route("10.7.0.0/16", nl.Route{Table: 77}),
		route("10.6.0.0/16", nl.Route{Table: 9}),
		route("10.0.0.5/32", nl.Route{Table: unix.RT_TABLE_LOCAL}),
	}
	st := state{Table: 9, Routes: carried(all, 5, 9)}
	var got []string
	for _, r := range st.inside() {
		got = append(got, r.String())
	}
	want := []string{"172.17.0.0/16 table 9", "10.7.0.0/16 table 77", "0.0.0.0/0 via 10.0.0.1 table 9"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes in the VRF (-want +got):\n%s", diff)
	}
}
