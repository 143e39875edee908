package fault

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/firewall"
	"github.com/netcleat/netcleat/plugins/portmap"
)

// The name of a chain or a condition does not carry another rule into the script
// of iptables-restore, as a sysctl's value once carried another one.
func TestCVE_2022_0811_Chains(t *testing.T) {
	const evil = `\n-P OUTPUT DROP`
	published := `"backend":"iptables","runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},`
	prev := `"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.1.0.2/16"}]}`
	for what, c := range map[string]nltest.Call{
		"externalSetMarkChain":   {Table: plugin.Table{"portmap": portmap.Plugin}, Plugin: "portmap", Conf: published + `"externalSetMarkChain":"X` + evil + `",`},
		"chain with more words":  {Table: plugin.Table{"portmap": portmap.Plugin}, Plugin: "portmap", Conf: published + `"externalSetMarkChain":"X -m mark",`},
		"chain that is a switch": {Table: plugin.Table{"portmap": portmap.Plugin}, Plugin: "portmap", Conf: published + `"externalSetMarkChain":"-X",`},
		"conditionsV4":           {Table: plugin.Table{"portmap": portmap.Plugin}, Plugin: "portmap", Conf: published + `"conditionsV4":["-m","comment","--comment","x\"` + evil + `"],`},
		"conditionsV6":           {Table: plugin.Table{"portmap": portmap.Plugin}, Plugin: "portmap", Conf: published + `"conditionsV6":["!","-d","fd00::1` + evil + `"],`},
		"iptablesAdminChainName": {Table: plugin.Table{"firewall": firewall.Plugin}, Plugin: "firewall", Conf: `"backend":"iptables","iptablesAdminChainName":"A` + evil + `",`},
		"admin chain, nftables":  {Table: plugin.Table{"firewall": firewall.Plugin}, Plugin: "firewall", Conf: `"backend":"nftables","iptablesAdminChainName":"A` + evil + `",`},
	} {
		t.Run(what, func(t *testing.T) {
			w := nltest.New(t)
			w.Run("iptables", "-L")
			w.Run("iptables", "-t", "nat", "-L")
			before := w.Snapshot()
			c.Conf = `{"cniVersion":"1.0.0","name":"net","type":"` + c.Plugin + `",` + c.Conf + prev + `}`
			w.Fails(plugin.Add, c, cnierr.InvalidConfig)
			w.Must(plugin.Del, c)
			if after := w.Snapshot(); strings.Contains(after, "DROP") || strings.Contains(after, "policy drop") || after != before {
				t.Errorf("changed\n%s\nto\n%s", before, after)
			}
		})
	}
}
