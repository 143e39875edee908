// Package forward turns on the forwarding of packets on the host, without
// taking from it what it has of its own by router advertisements.
package forward

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

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
// advertisements unless accept_ra is 2, so a link of the host whose default
// route came from one gets that first: the host keeps its own way out.
func Enable6(host *nl.Conn, g gate.Gate) error {
	if on, err := sysctl.Get(nil, key6); err == nil && on == "1" {
		return nil
	}
	keep, err := learned(host)
	if err != nil {
		return err
	}
	return sysctl.Set(nil, g, append(keep, sysctl.Setting{Key: key6, Value: "1"})...)
}

// learned returns what keeps the routes that the host learned from router
// advertisements (protocol ra; the kernel's default routes of that kind).
func learned(host *nl.Conn) ([]sysctl.Setting, error) {
	routes, err := host.Routes(unix.RT_TABLE_MAIN)
	if err != nil {
		return nil, err
	}
	var keep []sysctl.Setting
	seen := map[int]bool{}
	for _, r := range routes {
		if r.Protocol != unix.RTPROT_RA || seen[r.Index] || !r.Dst.Addr().Is6() {
			continue
		}
		seen[r.Index] = true
		l, err := host.LinkByIndex(r.Index)
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
