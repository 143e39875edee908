package create

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/nltest"
)

// tunnels are what Tailscale and wg-quick set up: routes in tables of their own,
// which rules look up before the main table; and what a user may add.
const tunnels = `link add ts0 type veth peer name ts1
link set ts0 up
link set ts1 up
addr add 100.100.1.2/32 dev ts0
rule add pref 5270 lookup 52
route add 100.64.0.0/10 dev ts0 table 52
route add 10.176.0.0/14 dev ts0 table 52
route add throw 10.181.0.0/16 table 52
route add 10.180.0.0/16 dev ts0 table 77
rule add pref 100 to 10.182.0.0/16 lookup 99
rule add not fwmark 0xca6c table 51820
route add 0.0.0.0/0 dev ts0 table 51820
route add 10.183.0.0/16 dev ts0 table 51820
route add unreachable 10.184.0.0/16
`

// A subnet that a tunnel's table routes is neither picked nor accepted; a table
// that no rule looks up holds nothing, and a default route does not either.
func TestPolicyRouting(t *testing.T) {
	b := nltest.New(t)
	b.IPBatch(tunnels)
	b.IPBatch("rule add pref 5270 lookup 52\nroute add fd7a:115c:a1e0::/48 dev ts0 table 52\n", "-6")
	h, err := kernel()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ subnet, by string }{
		{"10.177.5.0/24", "route 10.176.0.0/14 by ts0 (table 52)"},
		{"100.101.0.0/16", "route 100.64.0.0/10 by ts0 (table 52)"},
		{"10.182.3.0/24", "rule 100: from all to 10.182.0.0/16 lookup 99"},
		{"10.183.0.0/24", "route 10.183.0.0/16 by ts0 (table 51820)"},
		{"10.184.9.0/24", "route 10.184.0.0/16 by nothing"},
		{"fd7a:115c:a1e0:5::/64", "route fd7a:115c:a1e0::/48 by ts0 (table 52)"},
		{"10.180.5.0/24", ""}, // no rule looks up table 77
		{"10.181.5.0/24", ""}, // throw: the next rule decides
	} {
		_, err := draw(t, "named --subnet "+c.subnet, h)
		if c.by == "" && err != nil {
			t.Errorf("%s: %v, want it to be accepted", c.subnet, err)
		}
		if c.by != "" && (err == nil || !strings.Contains(err.Error(), "overlaps with "+c.by)) {
			t.Errorf("%s: %v, want it refused for %s", c.subnet, err, c.by)
		}
	}
	picked, err := draw(t, "web", h)
	if want := `"subnet": "10.180.0.0/24"`; err != nil || !strings.Contains(picked, want) {
		t.Errorf("picked %s %v, want %s", picked, err, want)
	}
	if taken, is := overlapping(h.Addrs, netip.MustParsePrefix("198.51.100.0/24")); is {
		t.Errorf("%s holds everything", taken.By)
	}
}
