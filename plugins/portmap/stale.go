package portmap

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/conntrack"
	"github.com/netcleat/netcleat/pkg/nl"
)

// fewPorts is up to how many ports the kernel is asked one by one.
const fewPorts = 8

// connectionless reports whether a sender goes on as if nothing had happened
// when its peer is replaced.
func connectionless(p proto) bool { return p == udp || p == sctp }

// flushStale forgets connections to the ports that lead elsewhere than to this
// container: a sender that never pauses would go on to reach the old one. That
// it cannot be done is no error.
func (j *job) flushStale() {
	var local []netip.Addr
	j.flush(func(m mapping, target netip.Addr, c conntrack.Conn) bool {
		if c.Reply.Src.Addr() == target {
			return false
		}
		if m.HostIP.IsValid() {
			return c.Orig.Dst.Addr() == m.HostIP
		}
		if local == nil {
			local = j.localAddrs()
		}
		return slices.Contains(local, c.Orig.Dst.Addr()) || c.Orig.Dst.Addr().IsLoopback()
	})
}

// flushTargets forgets connections to the ports that lead to this container,
// which is about to go.
func (j *job) flushTargets() {
	j.flush(func(_ mapping, target netip.Addr, c conntrack.Conn) bool { return c.Reply.Src.Addr() == target })
}

func (j *job) flush(stale func(mapping, netip.Addr, conntrack.Conn) bool) {
	for _, t := range j.Targets {
		for _, p := range protos {
			if connectionless(p) {
				j.flushProto(t.Addr(), p, stale)
			}
		}
	}
}

func (j *job) flushProto(target netip.Addr, p proto, stale func(mapping, netip.Addr, conntrack.Conn) bool) {
	list := slices.DeleteFunc(j.pick(target.Is6()), func(m mapping) bool { return m.Proto != p })
	ask := func(port uint16) {
		err := conntrack.Forget(j.gate, conntrack.Filter{V6: target.Is6(), Proto: uint8(p), Port: port}, func(c conntrack.Conn) bool {
			return slices.ContainsFunc(list, func(m mapping) bool {
				at := c.Orig.Dst.Port()
				return m.Host <= at && at <= m.last() && stale(m, target, c)
			})
		})
		if err != nil {
			j.note("portmap: %v", err)
		}
	}
	if len(list) == 0 {
		return
	}
	if len(list) > fewPorts || slices.ContainsFunc(list, func(m mapping) bool { return m.Count > 1 }) {
		ask(0)
		return
	}
	for _, m := range list {
		ask(m.Host)
	}
}

// localAddrs returns the host's addresses.
func (j *job) localAddrs() (list []netip.Addr) {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil
	}
	defer func() { _ = c.Close() }()
	addrs, _ := c.Addrs(0)
	for _, a := range addrs {
		list = append(list, a.Prefix.Addr())
	}
	return list
}
