package dnsname

import (
	"fmt"
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
)

// place finds the container's addresses, the gateways among them that are the
// host's, and the host's interface on the network.
func (st *State) place(host *nl.Conn, ifName string, prev *current.Result) error {
	const inSandbox = "whichever"
	_, index := link.Find(prev, ifName, inSandbox)
	for _, ip := range link.Owned(prev.IPs, index) {
		p, err := link.PrefixOf(ip.Address)
		if err != nil {
			return cnierr.Decode(fmt.Errorf("prevResult: %w", err))
		}
		st.Addrs = append(st.Addrs, p)
		gw := link.AddrOf(ip.Gateway)
		// A link-local address says nothing without the interface.
		if !gw.IsValid() || gw.IsLinkLocalUnicast() || slices.Contains(st.Gateways, gw) {
			continue
		}
		has, err := host.HasAddr(gw)
		if err != nil {
			return err
		}
		if has {
			st.Gateways = append(st.Gateways, gw)
		}
	}
	if len(st.Gateways) == 0 {
		return nil
	}
	return st.findLink(host, prev, st.Gateways[0])
}

// findLink finds the interface that has the gateway's address: the bridge, one of
// its VLANs, or the host's end of ptp's pair, of which others have it, too.
func (st *State) findLink(host *nl.Conn, prev *current.Result, gw netip.Addr) error {
	for _, i := range prev.Interfaces {
		if i == nil || i.Sandbox != "" || i.Name == "" {
			continue
		}
		l, err := host.LinkByName(i.Name)
		if nl.NotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		if has, err := hasAddr(host, l.Index, gw); err != nil || has {
			st.Link, st.Index = l.Name, l.Index
			return err
		}
	}
	all, err := host.Addrs(0)
	if err != nil {
		return err
	}
	for _, a := range all {
		if a.Prefix.Addr() != gw {
			continue
		}
		l, err := host.LinkByIndex(a.Index)
		if err != nil {
			return err
		}
		st.Link, st.Index = l.Name, l.Index
	}
	return nil
}

func hasAddr(host *nl.Conn, index int, addr netip.Addr) (bool, error) {
	all, err := host.Addrs(index)
	return slices.ContainsFunc(all, func(a nl.Addr) bool { return a.Prefix.Addr() == addr }), err
}
