package sbr

import (
	"context"
	"errors"
	"fmt"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
)

// attach answers ADD. prevResult is passed on as it came.
func attach(ctx context.Context, c *plugin.Call, conf config) (_ *current.Result, err error) {
	addrs, err := addresses(c)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		c.Note("sbr: prevResult has no address on interface %s: nothing to do", c.IfName)
		return nil, nil
	}
	p, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := plugin.LockSandbox(ctx, p); err != nil {
		return nil, err
	}
	var steps undo.Stack
	defer steps.OnError(&err)

	st, err := settle(p.Sandbox, c, addrs, conf)
	if err != nil {
		return nil, err
	}
	if err := c.Entry.SetState(st); err != nil {
		return nil, err
	}
	if err := c.Entry.Begin(); err != nil {
		return nil, cnierr.With(cnierr.IOFailure, err)
	}
	steps.Push("move routes back", func() error { return p.Sandbox.Do(append(st.takeRules(), st.moveBack()...)...) })
	return nil, p.Sandbox.Do(st.change(addrs)...)
}

// settle looks at the sandbox and plans.
func settle(sandbox *nl.Conn, c *plugin.Call, addrs []address, conf config) (state, error) {
	l, err := sandbox.LinkByName(c.IfName)
	if err != nil {
		return state{}, cnierr.Explain(fmt.Errorf("Cannot find network interface %s: Link not found", c.IfName), "%v", err) //nolint:staticcheck // a text that callers know
	}
	if conf.Table != 0 {
		if conf.SourceHints || conf.Gateway4.IsValid() || conf.Gateway6.IsValid() {
			c.Note("sbr: gateways and addSourceHints do nothing beside table: its routes are the user's")
		}
		return withTable(l.Index, conf.Table, addrs), nil
	}
	rules, err := sandbox.Rules()
	if err != nil {
		return state{}, err
	}
	routes, err := sandbox.Routes(0)
	if err != nil {
		return state{}, err
	}
	var main []nl.Route
	for _, r := range routes {
		if r.Table == unix.RT_TABLE_MAIN && r.Index == l.Index {
			main = append(main, r)
		}
	}
	return conf.plan(l.Index, addrs, main, usedTables(rules, routes)), nil
}
