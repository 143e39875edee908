package vrf

import (
	"cmp"
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// detach answers DEL: it takes the interface out of the VRF, with its addresses
// and routes, and removes the VRF when it is empty.
func detach(ctx context.Context, c *plugin.Call, conf config) (err error) {
	var st state
	recorded := c.Entry != nil && c.Entry.Found != journal.Nothing
	if recorded {
		if err := c.Entry.GetState(&st); err != nil {
			c.Note("vrf: record: %v", err)
		}
	}
	name := cmp.Or(st.VRF, conf.Name)
	if name == "" {
		return nil // neither this suite nor the reference attached it
	}
	p, err := c.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if p.Sandbox == nil {
		return nil // and with it the VRF
	}
	if !recorded {
		if other, err := c.AttachedBy(p.NS.ID); other || err != nil {
			return err
		}
	}
	if err := plugin.LockSandbox(ctx, p); err != nil {
		c.Note("%v (removing without it)", err)
	}
	d, err := find(p.Sandbox, name)
	if nl.NotFound(err) || cnierr.Code(err) == cnierr.InvalidConfig {
		return nil // no VRF, or a link of another kind with its name
	}
	if err != nil {
		return err
	}
	if err := part(p, c, st, d); err != nil {
		return err
	}
	if recorded && !d.Ours {
		return nil
	}
	return removeEmpty(p.Sandbox, d)
}

// part takes the interface out of the VRF. Where no record says what it had
// before, that is all, as in the reference.
func part(p *nl.Pair, c *plugin.Call, st state, d device) error {
	l, err := p.Sandbox.LinkNamed(c.IfName)
	if nl.NotFound(err) || err == nil && l.Master != d.Index {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Index == 0 {
		if other, err := link.IsOthers(p, c, l); other || err != nil {
			return err
		}
		return p.Sandbox.Do(leave(l.Name, l.Index))
	}
	if l.Index != st.Index {
		return nil // another link has the name now
	}
	if err := p.Sandbox.Do(leave(l.Name, l.Index)); err != nil {
		return err
	}
	return tolerate(c, st.restore(p, st.Routes))
}

// tolerate turns refusals that will be the same next time into a note: a link
// that is down, or has lost its addresses, cannot have its routes back.
func tolerate(c *plugin.Call, err error) error {
	for _, e := range []unix.Errno{unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.ENODEV, unix.EACCES} {
		if errors.Is(err, e) {
			c.Note("vrf: %v", err)
			return nil
		}
	}
	return err
}

// removeEmpty deletes a VRF without members: one that this plugin made. Of the
// reference's nothing tells who made it: there the last one out deletes it.
func removeEmpty(sandbox *nl.Conn, d device) error {
	n, err := members(sandbox, d)
	if err != nil || n > 0 {
		return err
	}
	return sandbox.Do(nl.DelLinkIndex(d.Name, d.Index))
}
