package sbr

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/boot"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Reconcile restores the rules of an attachment and the routes that they lead
// to, by its record alone. Where the sandbox is another now, or the interface
// gone, there is nothing to restore.
func Reconcile(ctx context.Context, g gate.Gate, _ journal.Dir, r journal.Record) (err error) {
	var st state
	if err := r.GetState(&st); err != nil {
		return err
	}
	p, err := nl.Open(r.Netns, g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if p.Sandbox == nil || !p.NS.ID.Same(r.NetnsID) || boot.Earlier(r.Boot) {
		return nil
	}
	if l, err := p.Sandbox.LinkNamed(r.IfName); err != nil || l.Index != st.Index || !l.Up() {
		return nil //nolint:nilerr // routes lead over a link that is up
	}
	rules, routes, err := st.missing(p.Sandbox)
	if err != nil || len(rules) == 0 && len(routes) == 0 {
		return err
	}
	if err := plugin.LockSandbox(ctx, p); err != nil {
		return err
	}
	return p.Sandbox.Do(st.restore(rules, routes)...)
}

// restore adds what is missing, routes before the rules that lead to them. One
// of several hops stands beside the others.
func (st state) restore(rules []nl.Rule, routes []nl.Route) (all []*nl.Message) {
	for _, r := range routes {
		add, same := nl.ReplaceRoute, 0
		for _, o := range st.Added {
			if r.SamePlace(o) {
				same++
			}
		}
		if same > 1 {
			add = nl.AppendRoute
		}
		all = append(all, add(r))
	}
	for _, r := range rules {
		m := nl.AddRule(r)
		m.Ignore = []unix.Errno{unix.EEXIST}
		all = append(all, m)
	}
	return all
}
