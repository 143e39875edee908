package plugin

import (
	"encoding/json"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/semver"
)

// What is written without reflection is what the types package writes, byte for
// byte, in every version that has the form.
func TestEncodeAsTypesPackage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		res := randomResult(rnd)
		for _, v := range specVersions {
			got, ok := encodePlain(res, v)
			if !ok {
				if semver.AtLeast(v, "0.3.0") {
					t.Fatalf("%+v: left to the types package", res)
				}
				continue
			}
			r, err := res.GetAsVersion(v)
			if err != nil {
				t.Fatal(err)
			}
			want, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Fatalf("version %s (-types +plain):\n%s", v, cmp.Diff(string(want), string(got)))
			}
		}
	}
}

func randomResult(rnd *rand.Rand) *current.Result {
	some := func(s ...string) string { return s[rnd.IntN(len(s))] }
	number := func() *int {
		if rnd.IntN(2) == 0 {
			return nil
		}
		return current.Int(int(rnd.Int64N(5000000000)))
	}
	ip := func() net.IP {
		return net.ParseIP(some("10.1.2.3", "fd00::1", "192.0.2.1", "::ffff:10.0.0.1"))
	}
	res := &current.Result{CNIVersion: "1.1.0"}
	for range rnd.IntN(3) {
		res.Interfaces = append(res.Interfaces, &current.Interface{
			Name: some("eth0", "a\"b", "ä<&>\x01"), Mac: some("", "02:00:00:00:00:01"), Sandbox: some("", "/run/netns/x"),
			Mtu: rnd.IntN(2) * 1500, SocketPath: some("", "/s"), PciID: some("", "0000:00:01.0"),
		})
	}
	for range rnd.IntN(3) {
		c := &current.IPConfig{Interface: number(), Address: net.IPNet{IP: ip(), Mask: net.CIDRMask(24, 32)}}
		if rnd.IntN(2) == 0 {
			c.Gateway = ip()
		}
		res.IPs = append(res.IPs, c)
	}
	for range rnd.IntN(3) {
		r := &types.Route{
			Dst: net.IPNet{IP: net.ParseIP("fd00::"), Mask: net.CIDRMask(64, 128)},
			MTU: rnd.IntN(2) * 1400, AdvMSS: rnd.IntN(2) * 1300, Priority: rnd.IntN(3), Table: number(), Scope: number(),
		}
		if rnd.IntN(2) == 0 {
			r.GW = ip()
		}
		res.Routes = append(res.Routes, r)
	}
	if rnd.IntN(2) == 0 {
		res.DNS = types.DNS{Nameservers: []string{"1.1.1.1", some("8.8.8.8", "é")}, Domain: some("", "d.example"), Search: []string{"s"}}
	}
	return res
}
