package nerdctl

import (
	"testing"

	"github.com/netcleat/netcleat/test/e2e/tried"
)

const named = `{"cniVersion":"1.0.0","name":"named","plugins":[
 {"type":"bridge","bridge":"named0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.66.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}},{"type":"firewall"},{"type":"tuning"},
 {"type":"dnsname","domainName":"dns.named","capabilities":{"aliases":true}}]}`

// TestNames: nerdctl passes no names. The plugin finds them in the container's
// bundle, and aliases in a label.
func TestNames(t *testing.T) {
	tried.Row(t, "names by `--name`, `--hostname` and the label `netcleat.dev/aliases`, with `--dns`")
	n := newNerdctl(t)
	n.Write("/etc/cni/net.d/named.conflist", named)
	n.serve("web", "--hostname=host-of-web", "--label=netcleat.dev/aliases=app,www", "--network=named", "--dns=10.66.0.1")
	n.serve("asker", "--network=named", "--dns=10.66.0.1")
	for _, name := range []string{"web", "host-of-web", "app", "WWW.dns.named.", n.do("inspect", "--format={{.Id}}", "web")[:12]} {
		if got, err := n.in("asker", "/bin/peer", "dns", "udp", name); err != nil || got != "10.66.0.2" {
			t.Errorf("%s: want 10.66.0.2, got %q, %v", name, got, err)
		}
	}
	n.remove("web")
	if got, err := n.in("asker", "/bin/peer", "dns", "tcp", "web"); err != nil || got != "NXDOMAIN" {
		t.Errorf("after rm: want NXDOMAIN, got %q, %v", got, err)
	}
	n.remove("asker")
	n.Run("rm", "/etc/cni/net.d/named.conflist")
	n.Left("named0", bridge)
}
