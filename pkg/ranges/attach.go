package ranges

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
)

// assign gives each requested address to the range set that has it: one for each
// set, the zero Addr where none is requested.
func (c *Config) assign() ([]netip.Addr, error) {
	wanted := make([]netip.Addr, len(c.sets))
	var left []string
	for _, a := range c.requested {
		if i := c.setFor(a, wanted); i >= 0 {
			wanted[i] = a
			continue
		}
		left = append(left, a.String())
	}
	if len(left) > 0 {
		return nil, cnierr.Config("failed to allocate all requested IPs: %s", strings.Join(left, " "))
	}
	return wanted, nil
}

// setFor returns the number of the set that has the address and nothing else to
// give, or -1.
func (c *Config) setFor(a netip.Addr, wanted []netip.Addr) int {
	for i, s := range c.sets {
		if s.find(a) != nil && !wanted[i].IsValid() {
			return i
		}
	}
	return -1
}

// allocation is the taking of one address from each range set.
type allocation struct {
	store  *lease.Store
	call   *plugin.Call
	conf   Config
	sets   []Set // what may be handed out: the configuration's or a part
	owner  lease.Owner
	healed bool // what is provably dead has been reclaimed already
	// published are the records of dead attachments by which packets may still be
	// led to their addresses.
	published []journal.Record
}

// run takes the addresses. Where one cannot be had, it gives back those that it
// took, and no others.
func (a *allocation) run(wanted []netip.Addr) (ips []*current.IPConfig, err error) {
	var steps undo.Stack
	defer steps.OnError(&err)
	had, err := a.store.Of(a.owner)
	if errors.Is(err, lease.ErrUnread) {
		a.call.Note("%v (its address counts as taken)", err)
	} else if err != nil {
		return nil, err
	}
	if err := a.conf.pairRequests(wanted); err != nil {
		return nil, err
	}
	for i, set := range a.conf.sets {
		if err := a.refuseSecond(set, had); err != nil {
			return nil, fmt.Errorf("failed to allocate for range %d: %w", i, err)
		}
		if a.conf.Pair != nil && i > 0 {
			wanted[i], _ = a.conf.Pair(0, i, addrOf(ips[0]))
		}
		got, err := a.take(i, wanted[i])
		if err != nil {
			return nil, fmt.Errorf("failed to allocate for range %d: %w", i, err)
		}
		l := lease.Lease{Addr: got, Owner: a.owner}
		steps.Push("release "+got.String(), func() error { return a.store.Give(l) })
		if err := a.store.SetLast(i, got); err != nil {
			return nil, cnierr.With(cnierr.IOFailure, err)
		}
		ips = append(ips, ipConfig(got, set.find(got)))
	}
	return ips, nil
}

// refuseSecond refuses an owner that holds an address of the set.
func (a *allocation) refuseSecond(set Set, had []lease.Lease) error {
	for _, l := range had {
		if set.find(l.Addr) != nil {
			return cnierr.Newf(cnierr.AlreadyAttached, "%s has been allocated to %s, duplicate allocation is not allowed", l.Addr, a.owner.ContainerID)
		}
	}
	return nil
}

func ipConfig(a netip.Addr, r *addrRange) *current.IPConfig {
	return &current.IPConfig{
		Address: net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(r.Subnet.Bits(), a.BitLen())},
		Gateway: r.Gateway.AsSlice(),
	}
}

// ShortError says that the sets have no free address for an attachment, or not the
// one that it wants.
type ShortError struct {
	Wanted netip.Addr // invalid: any
	err    error
}

func (e *ShortError) Error() string { return e.err.Error() }

// Unwrap has the code.
func (e *ShortError) Unwrap() error { return e.err }

func (a *allocation) take(n int, wanted netip.Addr) (netip.Addr, error) {
	if wanted.IsValid() {
		return wanted, a.takeThis(n, wanted)
	}
	return a.takeNext(n)
}

// takeThis takes the address that was asked for.
func (a *allocation) takeThis(n int, wanted netip.Addr) error {
	set := a.conf.sets[n]
	if set.find(wanted).Gateway.Addr == wanted {
		return cnierr.Config("requested ip %s is subnet's gateway", wanted)
	}
	if a.sets[n].find(wanted) == nil {
		return &ShortError{Wanted: wanted, err: cnierr.Newf(cnierr.Exhausted, "requested IP address %s is not in a block of this host", wanted)}
	}
	err := a.store.Take(wanted, a.owner)
	if errors.Is(err, lease.ErrTaken) && a.heal() {
		err = a.store.Take(wanted, a.owner)
	}
	if errors.Is(err, lease.ErrTaken) {
		return cnierr.Newf(cnierr.Exhausted, "requested IP address %s is not available in range set %s: %s", wanted, set, a.holder(wanted))
	}
	return cnierr.With(cnierr.IOFailure, err)
}

// holder says who holds the address.
func (a *allocation) holder(ip netip.Addr) string {
	l, _ := a.store.At(ip)
	if l.Foreign {
		return "it is reserved by hand"
	}
	return fmt.Sprintf("container %q interface %q holds it", l.Owner.ContainerID, l.Owner.IfName)
}

// takeNext takes the first free address behind the one handed out last. Where
// none is free, it looks once more when the leases of dead sandboxes have been
// reclaimed.
func (a *allocation) takeNext(n int) (netip.Addr, error) {
	set := a.sets[n]
	from := a.store.Last(n)
	var unpaired netip.Addr // the first that was passed over
	for {
		ip, ok := a.free(set, from)
		if ok && !a.pairsFree(n, ip) && ip != unpaired {
			if from = ip; !unpaired.IsValid() {
				unpaired = ip
			}
			continue
		}
		ok = ok && ip != unpaired
		if !ok && a.heal() {
			continue
		}
		if !ok {
			return netip.Addr{}, &ShortError{err: a.exhausted(set)}
		}
		err := a.store.Take(ip, a.owner)
		if !errors.Is(err, lease.ErrTaken) {
			return ip, cnierr.With(cnierr.IOFailure, err)
		}
		from = ip // somebody wrote to its file in the meantime
	}
}

// free finds the first free address behind from, going round all ranges of the
// set; from itself comes last.
func (a *allocation) free(set Set, from netip.Addr) (netip.Addr, bool) {
	if len(set) == 0 {
		return netip.Addr{}, false
	}
	first := 0
	for i := range set {
		if from.IsValid() && set[i].contains(from) {
			first = i
			break
		}
		if i == len(set)-1 {
			from = netip.Addr{}
		}
	}
	if from.IsValid() && from != set[first].End.Addr {
		if ip, ok := a.freeIn(&set[first], from.Next(), set[first].End.Addr); ok {
			return ip, true
		}
	}
	if !from.IsValid() {
		first = len(set) - 1
	}
	for i := range set {
		r := &set[(first+1+i)%len(set)]
		if ip, ok := a.freeIn(r, r.Start.Addr, r.End.Addr); ok {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// freeIn finds the first free address of a range, which is never the gateway's.
func (a *allocation) freeIn(r *addrRange, first, last netip.Addr) (netip.Addr, bool) {
	ip, ok := a.store.Free(first, last)
	if ok && ip == r.Gateway.Addr {
		if ip == last {
			return netip.Addr{}, false
		}
		ip, ok = a.store.Free(ip.Next(), last)
	}
	return ip, ok
}
