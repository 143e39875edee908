package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
)

// scopes returns what is let through for the container's addresses: the network's
// whole prefix where it lies behind the host, which is its gateway, as with bridge
// and ptp. Elsewhere, as behind macvlan or on a bridge into the LAN, machines that
// are no containers have the prefix, too, and only the addresses themselves are.
func scopes(prev *current.Result) (list []netip.Prefix, err error) {
	behind := slices.ContainsFunc(prev.Interfaces, func(i *current.Interface) bool { return i != nil && i.Sandbox == "" && i.Name != "" })
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for _, ip := range prev.IPs {
		p, err := netip.ParsePrefix(ip.Address.String())
		if err != nil {
			return nil, cnierr.Decode(fmt.Errorf("prevResult: address %s: %w", ip.Address.String(), err))
		}
		whole := false
		if gw := link.AddrOf(ip.Gateway); behind && gw.IsValid() && p.Contains(gw) {
			if whole, err = c.HasAddr(gw); err != nil {
				return nil, err
			}
		}
		if !whole {
			p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		}
		if p = p.Masked(); !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list, nil
}
