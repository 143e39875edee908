package bandwidth

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func call(keys string) *plugin.Call {
	return &plugin.Call{Verb: plugin.Add, IfName: "eth0", Stdin: []byte(`{"cniVersion":"1.1.0","name":"net","type":"bandwidth",` + keys + `}`)}
}

func TestParse(t *testing.T) {
	list := func(s ...string) (all []netip.Prefix) {
		for _, p := range s {
			all = append(all, netip.MustParsePrefix(p))
		}
		return all
	}
	for _, tc := range []struct {
		name, keys string
		want       config
	}{
		{"nothing", `"x":1`, config{}},
		{"zeros", `"ingressRate":0,"ingressBurst":0,"egressRate":0,"egressBurst":0`, config{}},
		{"both", `"ingressRate":8000,"ingressBurst":1600,"egressRate":16000,"egressBurst":800`, config{Ingress: &limit{1000, 200}, Egress: &limit{2000, 100}}},
		{"capability", `"runtimeConfig":{"bandwidth":{"ingressRate":8000,"ingressBurst":1600}}`, config{Ingress: &limit{1000, 200}}},
		{"own before the capability's", `"egressRate":16000,"egressBurst":800,"runtimeConfig":{"bandwidth":{"ingressRate":8000,"ingressBurst":1600}}`, config{Egress: &limit{2000, 100}}},
		{"own zero before the capability's", `"egressRate":0,"runtimeConfig":{"bandwidth":{"ingressRate":8000,"ingressBurst":1600}}`, config{}},
		{"containerd's burst", `"runtimeConfig":{"bandwidth":{"ingressRate":10000000,"ingressBurst":4294967295}}`, config{Ingress: &limit{1250000, 64 << 10}}},
		{"CRI-O's burst", `"runtimeConfig":{"bandwidth":{"egressRate":1000000000,"egressBurst":34359738359}}`, config{Egress: &limit{125000000, 1250000}}},
		{"subnets with the capability's limits", `"unshapedSubnets":["10.0.0.0/8","fd00::1/64"],"runtimeConfig":{"bandwidth":{"ingressRate":8000,"ingressBurst":1600}}`, config{Ingress: &limit{1000, 200}, Subnets: subnets{List: list("10.0.0.0/8", "fd00::/64")}}},
		{"shaped subnets", `"ingressRate":8000,"ingressBurst":1600,"shapedSubnets":["0.0.0.0/0"]`, config{Ingress: &limit{1000, 200}, Subnets: subnets{Only: true, List: list("0.0.0.0/0")}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parse(call(tc.keys))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct {
		keys string
		code uint
		want string
	}{
		{`"ingressRate":8000`, cnierr.InvalidConfig, "if rate is set, burst must also be set"},
		{`"egressBurst":8000`, cnierr.InvalidConfig, "if burst is set, rate must also be set"},
		{`"egressRate":8000,"egressBurst":34359738360`, cnierr.InvalidConfig, "burst cannot be more than 4GB"},
		{`"egressRate":7,"egressBurst":8000`, cnierr.InvalidConfig, "less than a byte a second"},
		{`"egressRate":-8,"egressBurst":8000`, cnierr.DecodingFailure, "failed to load netconf"},
		{`"egressRate":"1M","egressBurst":8000`, cnierr.DecodingFailure, "failed to load netconf"},
		{`"egressRate":80000,"egressBurst":8000,"shapedSubnets":["10.0.0.0"]`, cnierr.InvalidConfig, `bad subnet "10.0.0.0" provided`},
		{`"egressRate":80000,"egressBurst":8000,"shapedSubnets":["10.0.0.0/8"],"unshapedSubnets":["10.0.0.0/8"]`, cnierr.InvalidConfig, "cannot be both specified"},
	} {
		t.Run(tc.keys, func(t *testing.T) {
			_, err := parse(call(tc.keys))
			if err == nil || cnierr.Code(err) != tc.code || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("code %d, error %v; want code %d, %q", cnierr.Code(err), err, tc.code, tc.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "bandwidth") {
		f.Add(conf[1 : len(conf)-1])
	}
	f.Add(`"ingressRate":8000,"ingressBurst":1600,"shapedSubnets":["10.0.0.0/8"]`)
	f.Add(`"runtimeConfig":{"bandwidth":{"egressRate":8000,"egressBurst":4294967295}},"unshapedSubnets":["::/0"]`)
	f.Fuzz(func(t *testing.T, keys string) {
		conf, err := parse(call(keys))
		if err != nil {
			if cnierr.Code(err) == cnierr.Internal {
				t.Errorf("error without a code: %v", err)
			}
			return
		}
		for _, l := range []*limit{conf.Ingress, conf.Egress} {
			if l == nil {
				continue
			}
			s := shaper{Limit: *l, Subnets: conf.Subnets}
			if l.Rate == 0 || l.queue() < l.Burst {
				t.Errorf("limit %+v: queue %d", *l, l.queue())
			}
			s.add("link", 1)
		}
	})
}

// TestAsTheReferenceComputes compares with values that the reference's formulas
// give, since each suite's CHECK looks at what the other made.
func TestAsTheReferenceComputes(t *testing.T) {
	for _, tc := range []struct {
		l            limit
		queue, ticks uint32
	}{
		{limit{1250000, 65536}, 96786, 819187},
		{limit{1000, 200}, 225, 3125000},
		{limit{125000000, 1250000}, 4375000, 156250},
	} {
		ticks, ok := tc.l.ticks()
		if tc.l.queue() != tc.queue || ticks != tc.ticks || !ok {
			t.Errorf("%+v: queue %d, ticks %d; want %d, %d", tc.l, tc.l.queue(), ticks, tc.queue, tc.ticks)
		}
	}
	if _, ok := (limit{1250000, 536870911}).ticks(); ok {
		t.Error("429 s of a burst are given in ticks, which the kernel would cut to 4.3 s")
	}
}
