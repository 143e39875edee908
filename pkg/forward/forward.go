// Package forward turns on the forwarding of packets on the host, without
// taking from it what it has of its own by router advertisements.
package forward

import (
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

const (
	key4 = "net/ipv4/ip_forward"
	key6 = "net/ipv6/conf/all/forwarding"
)

// Enable4 makes the host forward IPv4 packets. It is shared and not undone.
func Enable4(g gate.Gate) error {
	if on, err := sysctl.Get(nil, key4); err == nil && on == "1" {
		return nil
	}
	return sysctl.Set(nil, g, sysctl.Setting{Key: key4, Value: "1"})
}

// Enable6 makes the host forward IPv6 packets. A router ignores router
// advertisements unless accept_ra is 2, so a link of the host whose routes or
// addresses came from them gets that first: the host keeps its own way out.
func Enable6(host *nl.Conn, g gate.Gate) error {
	switch on, err := sysctl.Get(nil, key6); {
	case err == nil && on == "1":
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return cnierr.Newf(cnierr.UnsupportedField, "IPv6 is asked for, and the host has none (booted with ipv6.disable=1?)")
	}
	keep, err := learned(host)
	if err != nil {
		return err
	}
	return sysctl.Set(nil, g, append(keep, sysctl.Setting{Key: key6, Value: "1"})...)
}

// learned returns what keeps the routes and addresses that the host's links have
// from router advertisements.
func learned(host *nl.Conn) ([]sysctl.Setting, error) {
	links, err := advertised(host)
	if err != nil {
		return nil, err
	}
	var keep []sysctl.Setting
	for _, index := range links {
		l, err := host.LinkByIndex(index)
		if nl.NotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		key := "net/ipv6/conf/" + l.Name + "/accept_ra"
		if v, err := sysctl.Get(nil, key); err == nil && v == "1" {
			keep = append(keep, sysctl.Setting{Key: key, Value: "2"})
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return keep, nil
}

// advertised returns the links that have routes from router advertisements
// (protocol ra, in whatever table), or addresses of limited life, which are
// theirs, too, unless a DHCP client keeps them.
func advertised(host *nl.Conn) ([]int, error) {
	routes, err := host.Routes(0)
	if err != nil {
		return nil, err
	}
	addrs, err := host.Addrs(0)
	if err != nil {
		return nil, err
	}
	var links []int
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_RA {
			links = append(links, r.Index)
		}
	}
	for _, a := range addrs {
		if a.Prefix.Addr().Is6() && a.Flags&unix.IFA_F_PERMANENT == 0 {
			links = append(links, a.Index)
		}
	}
	slices.Sort(links)
	return slices.Compact(links), nil
}
