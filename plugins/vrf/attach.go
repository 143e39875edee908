package vrf

import (
	"context"
	"errors"
	"fmt"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
)

// attach answers ADD. prevResult is passed on as it came.
func attach(ctx context.Context, c *plugin.Call, conf config) (_ *current.Result, err error) {
	if err := c.Chained(unchained); err != nil {
		return nil, err
	}
	p, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	// No other call chooses the same table, or removes the VRF that this one joins.
	if err := plugin.LockSandbox(ctx, p); err != nil {
		return nil, err
	}
	return nil, join(p, c, conf)
}

func join(p *nl.Pair, c *plugin.Call, conf config) (err error) {
	var steps undo.Stack
	defer steps.OnError(&err)

	l, err := outside(p.Sandbox, c.IfName)
	if err != nil {
		return err
	}
	routes, err := p.Sandbox.Routes(0)
	if err != nil {
		return err
	}
	d, err := target(p.Sandbox, conf, routes)
	if err != nil {
		return err
	}
	st, err := observe(p.Sandbox, l, d, routes)
	if err != nil {
		return err
	}
	if err := c.Entry.SetState(st); err != nil {
		return err
	}
	if err := c.Entry.Begin(); err != nil {
		return cnierr.With(cnierr.IOFailure, err)
	}
	if d.Index == 0 {
		if d, err = create(p.Sandbox, d.Name, d.Table); err != nil {
			return err
		}
		steps.Push("delete vrf "+d.Name, func() error { return p.Sandbox.Do(nl.DelLinkIndex(d.Name, d.Index)) })
	} else if err := p.Sandbox.Do(nl.SetUp(d.Name, d.Index)); err != nil {
		return err
	}
	steps.Push("take "+l.Name+" out of vrf "+d.Name, func() error { return st.release(p, l.Name) })
	return st.enslave(p, l.Name, d)
}

// outside returns the interface, which must be in no VRF, bridge or bond.
func outside(sandbox *nl.Conn, name string) (*nl.Link, error) {
	l, err := sandbox.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("could not get link by name %s: %w", name, err)
	}
	if l.Master == 0 {
		return l, nil
	}
	master := fmt.Sprintf("index %d", l.Master)
	if m, err := sandbox.LinkByIndex(l.Master); err == nil {
		master = m.Name
	}
	return nil, cnierr.Newf(cnierr.AlreadyAttached, "interface %s has already a master set: %s", name, master)
}

// target returns the VRF to join: the one that exists, or with index 0 the one to
// be made.
func target(sandbox *nl.Conn, conf config, routes []nl.Route) (device, error) {
	d, err := find(sandbox, conf.Name)
	switch {
	case err == nil && conf.Table != 0 && d.Table != conf.Table:
		return d, cnierr.Config("VRF %s already exist with different routing table %d", conf.Name, d.Table)
	case err == nil || !nl.NotFound(err):
		return d, err
	case conf.Table != 0:
		return device{Name: conf.Name, Table: conf.Table}, nil
	}
	links, err := sandbox.Links()
	if err != nil {
		return d, err
	}
	rules, err := sandbox.Rules()
	if err != nil {
		return d, err
	}
	return device{Name: conf.Name, Table: freeTable(links, rules, routes)}, nil
}
