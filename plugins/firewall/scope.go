package firewall

import (
	"fmt"
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/scope"
)

// scopes returns what is let through for the container's addresses: the prefix that
// the network hands out all of, where it lies behind the host, which is its gateway,
// as with bridge and ptp. Elsewhere, as behind macvlan or on a bridge into the LAN,
// machines that are no containers have the prefix, too, and only the addresses
// themselves are.
func scopes(c *nl.Conn, prev *current.Result, network scope.Scope) (list []netip.Prefix, err error) {
	behind := slices.ContainsFunc(prev.Interfaces, onHost)
	for _, ip := range prev.IPs {
		p, err := link.PrefixOf(ip.Address)
		if err != nil {
			return nil, cnierr.Decode(fmt.Errorf("prevResult: %w", err))
		}
		behindGateway := false
		if gw := link.AddrOf(ip.Gateway); behind && gw.IsValid() && p.Contains(gw) {
			if behindGateway, err = c.HasAddr(gw); err != nil {
				return nil, err
			}
		}
		if !behindGateway {
			network = scope.Scope{}
		}
		if p = network.Block(p); !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list, nil
}

// onHost reports whether the interface is one of the host.
func onHost(i *current.Interface) bool { return i != nil && i.Sandbox == "" && i.Name != "" }
