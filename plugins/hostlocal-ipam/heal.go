package hostlocal

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// heal reclaims the leases of attachments that are provably gone, once. It
// reports whether it reclaimed any. A lease of which the journal knows nothing is
// never one of them.
func (a *allocation) heal() bool {
	if a.healed || !a.conf.reclaim {
		return false
	}
	a.healed = true
	records, err := a.call.Journal.Network(a.call.Conf.Name)
	if err != nil {
		a.call.Note("%v (leases of these attachments are kept)", err)
	}
	o, err := newObserver()
	if err != nil {
		a.call.Note("%v (no lease is reclaimed)", err)
		return false
	}
	a.known = map[lease.Owner]bool{}
	reclaimed := 0
	for _, r := range byAttachment(records) {
		n, err := a.bury(o, r)
		if err != nil {
			a.call.Note("lease of container %q interface %q: %v (kept)", r[0].ContainerID, r[0].IfName, err)
		}
		if n == 0 {
			a.known[lease.Owner{ContainerID: r[0].ContainerID, IfName: r[0].IfName}] = true
		}
		reclaimed += n
	}
	if err := errors.Join(o.blind, o.close()); err != nil {
		a.call.Note("%v (leases are kept where nothing else proves the sandbox's end)", err)
	}
	return reclaimed > 0
}

// byAttachment groups the records that the plugins of a list keep of one
// attachment.
func byAttachment(records []journal.Record) map[lease.Owner][]journal.Record {
	all := map[lease.Owner][]journal.Record{}
	for _, r := range records {
		o := lease.Owner{ContainerID: r.ContainerID, IfName: r.IfName}
		all[o] = append(all[o], r)
	}
	return all
}

// bury gives back what an attachment holds if it is dead, and returns how many
// leases that were.
func (a *allocation) bury(o *observer, records []journal.Record) (n int, err error) {
	who := lease.Owner{ContainerID: records[0].ContainerID, IfName: records[0].IfName}
	leases, err := a.store.Of(who)
	if err != nil || len(leases) == 0 {
		return 0, err
	}
	dead, err := a.isDead(o, records)
	if err != nil || !dead {
		return 0, err
	}
	for _, l := range leases {
		if l.Owner != who {
			continue // its other interfaces may hold that
		}
		if err := a.store.Give(l); err != nil {
			return n, err
		}
		a.call.Note("reclaimed %s: the sandbox of container %q is gone", l.Addr, who.ContainerID)
		n++
	}
	return n, nil
}

// isDead reports whether all records say that the attachment is gone. While an
// operation on it runs it is not. The lock is tried and not waited for: who holds
// it may be waiting for the leases.
func (a *allocation) isDead(o *observer, records []journal.Record) (bool, error) {
	now, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	for _, r := range records {
		e, err := a.call.Journal.Open(now, r.Key)
		if errors.Is(err, journal.ErrBusy) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		dead := e.Found != journal.Nothing && o.isDead(&e.Record)
		if err := e.Close(); err != nil || !dead {
			return false, err
		}
	}
	return true, nil
}

// observer tells dead attachments from living ones. In doubt they live.
type observer struct {
	host  netns.ID // where this process can see links
	conn  *nl.Conn
	exist func(journal.Link) bool            // a link of the host
	held  func() (map[uint64]bool, error)    // network namespaces that something holds
	seen  map[uint64]bool                    // held, once it has been asked
	blind error                              // why held does not know
	at    func(path string) (netns.ID, bool) // the namespace at a path
}

func newObserver() (*observer, error) {
	host, err := netns.Identify(netns.Own)
	if err != nil {
		return nil, err
	}
	conn, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	host.Cookie = netns.CookieOf(conn.Fd())
	o := &observer{host: host, conn: conn, at: identify}
	o.exist = o.linkExists
	o.held = func() (map[uint64]bool, error) { return netns.Held("/proc") }
	return o, nil
}

func (o *observer) close() error { return o.conn.Close() }

func identify(path string) (netns.ID, bool) {
	id, err := netns.Identify(path)
	return id, err == nil
}

// isDead reports whether what the record speaks of is gone. A pair of veths dies
// with the sandbox, and its end on the host can be seen from everywhere in the
// host's network namespace; of other sandboxes nothing must be left that holds
// them.
func (o *observer) isDead(r *journal.Record) bool {
	if id, ok := o.at(r.Netns); ok && id.Same(r.NetnsID) || r.NetnsID.Ino == 0 {
		return false
	}
	if ends := hostEnds(r); len(ends) > 0 {
		for _, l := range ends {
			if !r.HostID.Same(o.host) || o.exist(l) {
				return false
			}
		}
		return true
	}
	if o.seen == nil && o.blind == nil {
		o.seen, o.blind = o.held()
	}
	return len(o.seen) > 0 && !o.seen[r.NetnsID.Ino]
}

// hostEnds returns the veths on the host of plugins that make some: other links
// do not die with the sandbox.
func hostEnds(r *journal.Record) (ends []journal.Link) {
	if r.Plugin != "bridge" && r.Plugin != "ptp" {
		return nil
	}
	for _, l := range r.Links {
		if !l.Sandbox && l.Index > 0 {
			ends = append(ends, l)
		}
	}
	return ends
}

// linkExists reports whether the host has a link of the name or the index: it
// may have been renamed.
func (o *observer) linkExists(l journal.Link) bool {
	_, byName := o.conn.LinkByName(l.Name)
	_, byIndex := o.conn.LinkByIndex(l.Index)
	return !nl.NotFound(byName) || !nl.NotFound(byIndex)
}

// exhausted says what fills the set and where to look further.
func (a *allocation) exhausted(set rangeSet) error {
	var held, live uint64
	for i := range set {
		held += a.store.CountHeld(set[i].Start.Addr, set[i].End.Addr)
		if set[i].contains(set[i].Gateway.Addr) && a.store.IsHeld(set[i].Gateway.Addr) {
			held-- // not one of those that are handed out
		}
	}
	for o := range a.known {
		leases, err := a.store.Of(o)
		if err != nil {
			continue
		}
		for _, l := range leases {
			if set.find(l.Addr) != nil {
				live++
			}
		}
	}
	live = min(live, held)
	return cnierr.With(cnierr.Exhausted, fmt.Errorf("no IP addresses available in range set: %s: %s of %s addresses are held, %s by attachments that live or may live, %s by owners that the journal does not know; `netcleat doctor` lists them",
		set, grouped(held), grouped(set.size()), grouped(live), grouped(held-live)))
}

// grouped writes a number with a comma between thousands.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
