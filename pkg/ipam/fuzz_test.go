package ipam

import (
	"testing"

	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Whatever a foreign IPAM plugin answers, it is refused, or can be given to an
// interface.
func FuzzResult(f *testing.F) {
	for _, s := range []string{
		`{"cniVersion":"1.0.0","interfaces":[{"name":"x"}],"ips":[{"address":"10.1.0.2/16","gateway":"10.1.0.1","interface":7}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.1.0.1"]}}`,
		`{"cniVersion":"1.1.0","ips":[{"address":"fd00::2/64"}],"routes":[{"dst":"::/0","gw":"fd00::1","mtu":1400,"advmss":1,"priority":2,"table":3,"scope":253}]}`,
		`{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.2/16","gateway":"10.1.0.1","routes":[{"dst":"10.0.0.0/8"}]},"ip6":{"ip":"fd00::2/64"}}`,
		`{"cniVersion":"0.4.0","ips":[{"version":"6","address":"::ffff:10.0.0.1/120"}]}`,
		`{"ips":[{"address":"10.1.0.2/0"}]}`, `{"ips":[null],"routes":[null],"interfaces":[null]}`, `{"code":11,"msg":"busy"}`, `null`, `{}`, `[]`, `{"cniVersion":""}`,
	} {
		f.Add([]byte(s), "1.0.0")
		f.Add([]byte(s), "0.2.0")
	}
	f.Fuzz(func(t *testing.T, out []byte, version string) {
		c := &plugin.Call{Verb: plugin.Add}
		c.Conf.CNIVersion = version
		res, err := (&delegate{name: "fuzz"}).decode(c, out)
		if err != nil || sound(res) != nil {
			return
		}
		if _, err := link.Routes(1, res.IPs, res.Routes); err != nil {
			t.Errorf("%s is sound, but: %v", out, err)
		}
		for _, ip := range res.IPs {
			if p, err := link.PrefixOf(ip.Address); err != nil || p.Bits() == 0 || p.Addr().IsLoopback() {
				t.Errorf("%s is sound, but its address is %v %v", out, p, err)
			}
		}
	})
}
