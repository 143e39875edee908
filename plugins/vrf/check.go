package vrf

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// check answers CHECK: the interface is in the VRF, which is up and has its
// table, and the routes that moved are there.
func check(_ context.Context, c *plugin.Call, conf config) (err error) {
	if err := c.Chained(unchained); err != nil {
		return err
	}
	st := state{Table: conf.Table}
	if c.Entry != nil {
		if err := c.Entry.GetState(&st); err != nil {
			return cnierr.With(cnierr.IOFailure, err)
		}
	}
	p, err := c.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	d, err := find(p.Sandbox, conf.Name)
	if nl.NotFound(err) {
		return cnierr.Check("vrf %s is missing", conf.Name)
	}
	if err != nil {
		return err
	}
	if st.Table != 0 && d.Table != st.Table {
		return cnierr.Check("vrf %s has table %d, not %d", d.Name, d.Table, st.Table)
	}
	l, err := p.Sandbox.LinkNamed(c.IfName)
	if nl.NotFound(err) || err == nil && l.Master != d.Index {
		return cnierr.Check("failed to find %s associated to vrf %s", c.IfName, d.Name)
	}
	if err != nil {
		return err
	}
	return checkRoutes(p.Sandbox, st)
}

// checkRoutes leaves out what the kernel itself takes away and adds: routes of
// router advertisements.
func checkRoutes(sandbox *nl.Conn, st state) error {
	if len(st.Routes) == 0 {
		return nil
	}
	have, err := sandbox.Routes(0)
	if err != nil {
		return err
	}
	for _, want := range st.inside() {
		if want.Protocol == unix.RTPROT_RA {
			continue
		}
		if !slices.ContainsFunc(have, func(r nl.Route) bool {
			return r.Table == want.Table && r.Dst == want.Dst && r.Gateway == want.Gateway && r.Index == want.Index
		}) {
			return cnierr.Check("route %s is missing", want)
		}
	}
	return nil
}
