package sbr

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// detach answers DEL: it deletes the rules, and as long as the interface is
// there moves its routes back.
func detach(_ context.Context, c *plugin.Call, p *nl.Pair, conf config) (err error) {
	if p.Sandbox == nil {
		return nil // and with it the rules
	}
	if c.Entry == nil || c.Entry.Found == journal.Nothing {
		return detachReference(p, c, conf)
	}
	var st state
	if err := c.Entry.GetState(&st); err != nil {
		c.Note("sbr: record: %v", err)
	}
	if err := p.Sandbox.Do(st.takeRules()...); err != nil {
		return err
	}
	l, err := p.Sandbox.LinkNamed(c.IfName)
	if nl.NotFound(err) || err == nil && l.Index != st.Index {
		return nil // and with it the routes
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range st.moveBack() {
		errs = append(errs, tolerate(c, p.Sandbox.Do(m)))
	}
	return errors.Join(errs...)
}

// tolerate turns a refusal that will be the same next time into a note: a link
// that is down, or has lost its addresses, cannot have its routes back.
func tolerate(c *plugin.Call, err error) error {
	for _, e := range []unix.Errno{unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.ENODEV, unix.ENOENT} {
		if errors.Is(err, e) {
			c.Note("sbr: %v", err)
			return nil
		}
	}
	return err
}

// detachReference deletes the rules that the reference made: those from an
// address of the interface, in the configured table where there is one.
func detachReference(p *nl.Pair, c *plugin.Call, conf config) error {
	if other, err := c.AttachedBy(p.NS.ID); other || err != nil {
		return err
	}
	mine, err := known(p, c)
	if err != nil || len(mine) == 0 {
		return err
	}
	rules, err := p.Sandbox.Rules()
	if err != nil {
		return err
	}
	var gone []*nl.Message
	for _, r := range rules {
		single := r.Src.IsValid() && r.Src.IsSingleIP()
		if single && slices.Contains(mine, r.Src.Addr()) && (conf.Table == 0 || conf.Table == r.Table) {
			gone = append(gone, nl.DelRule(r))
		}
	}
	return p.Sandbox.Do(gone...)
}

// known returns the interface's addresses: what it has, and what prevResult says
// that it had; none where the interface is another container's.
func known(p *nl.Pair, c *plugin.Call) ([]netip.Addr, error) {
	var mine []netip.Addr
	if addrs, err := addresses(c); err == nil {
		for _, a := range addrs {
			mine = append(mine, a.Prefix.Addr())
		}
	}
	l, err := p.Sandbox.LinkNamed(c.IfName)
	if nl.NotFound(err) {
		return mine, nil
	}
	if err != nil {
		return nil, err
	}
	if other, err := link.IsOthers(p, c, l); other || err != nil {
		return nil, err
	}
	addrs, err := p.Sandbox.Addrs(l.Index)
	for _, a := range addrs {
		mine = append(mine, a.Prefix.Addr())
	}
	return mine, err
}
