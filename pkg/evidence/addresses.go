package evidence

import (
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Addresses judges what is for addresses alone, such as a network's rules, and names
// no sandbox. Who needs it has one of the addresses: it is dead only where every network
// namespace but the host's could be looked at, and none has one.
func (j *Judge) Addresses(of []netip.Prefix) Verdict {
	if len(of) == 0 {
		return unknown("nothing says which addresses it is for")
	}
	held, err := j.held()
	if err != nil {
		return unknown("%v", err)
	}
	verdict := dead("no network namespace has an address of it")
	for ino, path := range held {
		if ino == j.host.Ino {
			continue
		}
		found, err := addressIn(path, of)
		if err != nil {
			verdict = unknown("%s: %v", path, err)
		}
		if found.IsValid() {
			return alive("%s has the address %s", path, found)
		}
	}
	return verdict
}

// addressIn returns an address that a namespace has in one of the prefixes.
func addressIn(path string, prefixes []netip.Prefix) (found netip.Addr, err error) {
	ns, err := netns.Open(path)
	if err != nil {
		return found, err
	}
	c, err := nl.Dial(ns, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return found, errors.Join(err, ns.Close())
	}
	addrs, err := c.Addrs(0)
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		if slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			found = ip
		}
	}
	return found, errors.Join(err, c.Close(), ns.Close())
}
