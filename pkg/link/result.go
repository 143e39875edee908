package link

import (
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Interface is the sandbox's link as the result reports it.
func Interface(l *nl.Link, sandbox string) *current.Interface {
	return &current.Interface{Name: l.Name, Mac: l.MAC.String(), Mtu: l.MTU, Sandbox: sandbox}
}

// ChooseDNS replaces the IPAM plugin's DNS settings by the configuration's, where
// it has any. As in the reference an empty list is one: "nameservers": [] says
// that there are none, whatever IPAM says.
func ChooseDNS(res *current.Result, conf types.DNS) {
	if conf.Nameservers != nil || conf.Domain != "" || conf.Search != nil || conf.Options != nil {
		res.DNS = conf
	}
}

// Record puts into the attachment's record what it is made of.
func Record(e *journal.Entry, ips []*current.IPConfig, links ...journal.Link) {
	e.Links, e.IPs = links, nil
	for _, ip := range ips {
		if p, err := PrefixOf(ip.Address); err == nil {
			e.IPs = append(e.IPs, p)
		}
	}
}

// AddrsOf returns the addresses that a result has for the sandbox's interface of
// the name; one that names no interface is taken for that one's.
func AddrsOf(res *current.Result, name string) (list []netip.Prefix, err error) {
	for _, ip := range res.IPs {
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(res.Interfaces) &&
			(res.Interfaces[*i].Name != name || res.Interfaces[*i].Sandbox == "") {
			continue
		}
		p, err := PrefixOf(ip.Address)
		if err != nil {
			return nil, cnierr.Decode(fmt.Errorf("prevResult: %w", err))
		}
		list = append(list, p)
	}
	return list, nil
}

// InSandbox is the record of a link in the sandbox.
func InSandbox(l *nl.Link) journal.Link {
	return journal.Link{Name: l.Name, Index: l.Index, MAC: l.MAC.String(), Kind: l.Kind, Parent: l.Parent, Sandbox: true}
}
