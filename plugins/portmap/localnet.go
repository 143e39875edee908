package portmap

import (
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

// findLocalnet finds the interface that connections from 127.0.0.1 to published
// ports leave by. Where there is none, nobody misses them.
func (j *job) findLocalnet() error {
	i := slices.IndexFunc(j.Targets, func(p netip.Prefix) bool { return p.Addr().Is4() })
	if !j.SNAT || i < 0 || !slices.ContainsFunc(j.pick(false), mapping.atLoopback) {
		return nil
	}
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	j.Localnet = outgoing(c, j.Targets[i].Addr())
	return c.Close()
}

// findNear finds the subnets that the interface with route_localnet has addresses
// of: those of all networks on a bridge.
func (j *job) findNear() error {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	l, err := c.LinkByName(j.Localnet)
	if err == nil {
		var addrs []nl.Addr
		addrs, err = c.Addrs(l.Index)
		for _, a := range addrs {
			j.near = append(j.near, a.Prefix.Masked())
		}
	}
	if nl.NotFound(err) {
		err = nil // no connections from 127.0.0.1 go there
	}
	return errors.Join(err, c.Close())
}

// atLoopback reports whether the mapping is for 127.0.0.1, too.
func (m mapping) atLoopback() bool { return !m.HostIP.IsValid() || m.HostIP.IsLoopback() }

// outgoing returns the name of the interface that the host reaches ip by, or "".
func outgoing(c *nl.Conn, ip netip.Addr) string {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = unix.AF_INET, 32
	m := nl.NewMessage("route to "+ip.String(), unix.RTM_GETROUTE, 0, h...).IP(unix.RTA_DST, ip)
	index := 0
	m.Reply = func(b []byte) error {
		nl.Attrs(nl.After(b, unix.SizeofRtMsg), func(typ uint16, d []byte) {
			if typ == unix.RTA_OIF {
				index = int(nl.Uint32(d))
			}
		})
		return nil
	}
	if c.Do(m) != nil || index == 0 {
		return ""
	}
	l, err := c.LinkByIndex(index)
	if err != nil {
		return ""
	}
	return l.Name
}

func localnetKey(link string) string { return "net/ipv4/conf/" + link + "/route_localnet" }

// routeLocalnet has the kernel route packets from 127.0.0.1 to the container.
// The guard against those of others is in place by then.
func (j *job) routeLocalnet() error {
	if j.Localnet == "" {
		return nil
	}
	key := localnetKey(j.Localnet)
	if v, err := sysctl.Get(nil, key); err == nil && v == "1" {
		return nil
	}
	return sysctl.Set(nil, j.gate, sysctl.Setting{Key: key, Value: "1"})
}

// checkLocalnet compares the setting with what routeLocalnet makes.
func (j *job) checkLocalnet() error {
	if j.Localnet == "" {
		return nil
	}
	v, err := sysctl.Get(nil, localnetKey(j.Localnet))
	if errors.Is(err, unix.ENOENT) || err == nil && v == "1" { // without the interface there are no ports to reach
		return nil
	}
	if err != nil {
		return err
	}
	if all, err := sysctl.Get(nil, localnetKey("all")); err == nil && all == "1" {
		return nil
	}
	return cnierr.Check("published ports: %s is %s, so that they do not answer at 127.0.0.1 (netcleat reconcile restores it)", localnetKey(j.Localnet), v)
}

// unrouteLocalnet is called before the guard goes. The interface may be gone.
func (j *job) unrouteLocalnet() error {
	if j.Localnet == "" {
		return nil
	}
	key := localnetKey(j.Localnet)
	v, err := sysctl.Get(nil, key)
	if errors.Is(err, unix.ENOENT) || v == "0" {
		return nil
	}
	err = sysctl.Set(nil, j.gate, sysctl.Setting{Key: key, Value: "0", IfExists: true})
	if errors.Is(err, unix.EROFS) {
		j.note("portmap: %s stays 1: /proc/sys is read-only, so it was not ADD that set it", key)
		return nil
	}
	return err
}
