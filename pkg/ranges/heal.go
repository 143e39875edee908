package ranges

import (
	"context"
	"errors"
	"slices"

	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
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
	judge, err := evidence.New()
	if err != nil {
		a.call.Note("%v (no lease is reclaimed)", err)
		return false
	}
	f := healing{judge: judge}
	for _, r := range byAttachment(records) {
		if err := a.reclaim(&f, r); err != nil {
			a.call.Note("lease of container %q interface %q: %v (kept)", r[0].ContainerID, r[0].IfName, err)
		}
	}
	if f.unknown > 0 {
		a.call.Note("leases of %d attachments are kept, which may be dead: of %q: %s (`netcleat doctor` lists them, and says how to remove them)", f.unknown, f.one, f.why)
	}
	if err := judge.Close(); err != nil {
		a.call.Note("%v", err)
	}
	return f.reclaimed > 0
}

// healing counts what one heal has found.
type healing struct {
	judge              *evidence.Judge
	reclaimed, unknown int
	one, why           string // of the unknown ones
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

// reclaim gives back what an attachment holds if it is dead.
func (a *allocation) reclaim(f *healing, records []journal.Record) error {
	who := lease.Owner{ContainerID: records[0].ContainerID, IfName: records[0].IfName}
	leases, err := a.store.Of(who)
	if err != nil || len(leases) == 0 {
		return err
	}
	dead, err := a.isDead(f, records)
	if err != nil || !dead {
		return err
	}
	if p := a.publishing(records); len(p) > 0 {
		a.published = append(a.published, p...)
		return nil
	}
	for _, l := range leases {
		if l.Owner != who {
			continue // its other interfaces may hold that
		}
		if err := a.store.Give(l); err != nil {
			return err
		}
		a.call.Note("reclaimed %s: the sandbox of container %q no longer exists", l.Addr, who.ContainerID)
		f.reclaimed++
	}
	return nil
}

// publishing returns the records of chained plugins: a port that portmap published is
// led to the address, whoever has it.
func (a *allocation) publishing(records []journal.Record) (chained []journal.Record) {
	for _, r := range records {
		if a.call.IsChained(r.Plugin) {
			chained = append(chained, r)
		}
	}
	return chained
}

// unpublish detaches what chained plugins made for dead attachments, without the lock
// on the leases. It reports whether their leases can be reclaimed now.
func (a *allocation) unpublish(ctx context.Context) (some bool) {
	all := a.published
	a.published = nil
	for _, r := range slices.Backward(all) {
		if err := a.call.Detach(ctx, r); err != nil {
			a.call.Note("%s of container %q interface %q: %v (its lease is kept)", r.Plugin, r.ContainerID, r.IfName, err)
			continue
		}
		some = true
	}
	return some
}

// isDead judges an attachment by its records. While an operation on it runs it is
// alive. The lock is tried and not waited for: who holds it may be waiting for the
// leases.
func (a *allocation) isDead(f *healing, records []journal.Record) (bool, error) {
	now, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	var all []journal.Record
	for _, r := range records {
		e, err := a.call.Journal.Open(now, r.Key)
		if errors.Is(err, journal.ErrBusy) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		all = append(all, e.Record)
		if err := e.Close(); err != nil || e.Found == journal.Nothing {
			return false, err
		}
	}
	v := f.judge.Of(all)
	if v.State == evidence.Unknown {
		f.unknown, f.one, f.why = f.unknown+1, all[0].ContainerID, v.Why
	}
	return v.State == evidence.Dead, nil
}
