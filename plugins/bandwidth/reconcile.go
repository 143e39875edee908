package bandwidth

import (
	"context"
	"errors"

	"github.com/netcleat/netcleat/pkg/boot"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Reconcile restores the limits of an attachment, by its record alone. Where the
// host's end is gone, or another link has its name, there is nothing to restore.
func Reconcile(_ context.Context, g gate.Gate, _ journal.Dir, r journal.Record) (err error) {
	var st state
	if err := r.GetState(&st); err != nil || st.Host == "" {
		return err
	}
	if own, err := netns.Identify(netns.Own); err != nil || !own.Same(r.HostID) || boot.Earlier(r.Boot) {
		return err
	}
	p, err := nl.Open("", g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	host, err := p.Host.LinkByName(st.Host)
	if nl.NotFound(err) || err == nil && host.Index != st.Index {
		return nil
	}
	if err != nil || st.check(p.Host, host) == nil {
		return err
	}
	for _, m := range st.unshape() { // one after the other: what is not there is no reason to stop
		if err := p.Host.Do(m); err != nil && !nl.NotFound(err) {
			return err
		}
	}
	return st.shape(p.Host, host, aliasOf(r.Key))
}

// shape makes anew what limits the host's end.
func (st state) shape(c *nl.Conn, host *nl.Link, alias string) error {
	var batch []*nl.Message
	if st.Ingress != nil {
		batch = shaper{*st.Ingress, st.list(), true}.add(host.Name, host.Index)
	}
	if st.Egress != nil {
		ifb, err := createIFB(c, st.IFB, host.MTU, alias)
		if err != nil {
			return err
		}
		batch = append(batch, shaper{*st.Egress, st.list(), false}.add(ifb.Name, ifb.Index)...)
		batch = append(batch, redirect(host.Name, host.Index, ifb.Index)...)
	}
	return c.Do(batch...)
}
