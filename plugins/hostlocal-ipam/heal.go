package hostlocal

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// heal reclaims the leases of attachments that are provably gone, once. It
// reports whether it reclaimed any. A lease of which the journal knows nothing is
// never one of them.
func (a *allocation) heal() bool {
	if a.healed || !a.conf.reclaim || a.call.Journal == "" {
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
	reclaimed := 0
	for _, r := range byAttachment(records) {
		n, err := a.bury(o, r)
		if err != nil {
			a.call.Note("lease of container %q interface %q: %v (kept)", r[0].ContainerID, r[0].IfName, err)
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
