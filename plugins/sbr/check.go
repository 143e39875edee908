package sbr

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// check answers CHECK: every address has its rule, and where this suite made
// them its table the routes.
func check(_ context.Context, c *plugin.Call, conf config) (err error) {
	addrs, err := addresses(c)
	if err != nil || len(addrs) == 0 {
		return err
	}
	p, err := c.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if c.Entry == nil {
		return checkReference(p.Sandbox, addrs, conf)
	}
	var st state
	if err := c.Entry.GetState(&st); err != nil {
		return cnierr.With(cnierr.IOFailure, err)
	}
	rules, routes, err := st.missing(p.Sandbox)
	switch {
	case err != nil:
		return err
	case len(rules) > 0:
		return cnierr.Check("rule %s is missing (netcleat reconcile restores it)", rules[0])
	case len(routes) > 0:
		return cnierr.Check("route %s is missing (netcleat reconcile restores it)", routes[0])
	}
	return nil
}

// checkReference knows no table but the configured one.
func checkReference(sandbox *nl.Conn, addrs []address, conf config) error {
	rules, err := sandbox.Rules()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		src := nl.From(a.Prefix.Addr(), 0).Src
		if !slices.ContainsFunc(rules, func(r nl.Rule) bool { return r.Src == src && (conf.Table == 0 || conf.Table == r.Table) }) {
			return cnierr.Check("rule from %s is missing", src)
		}
	}
	return nil
}

// missing returns what ADD made and the sandbox lacks, but for what the kernel
// itself takes away and adds: link-local routes, and those of router
// advertisements.
func (st state) missing(sandbox *nl.Conn) (rules []nl.Rule, routes []nl.Route, err error) {
	there, err := sandbox.Rules()
	if err != nil {
		return nil, nil, err
	}
	for _, want := range st.Rules {
		if !slices.ContainsFunc(there, func(r nl.Rule) bool { return r.Src == want.Src && r.Table == want.Table }) {
			rules = append(rules, want)
		}
	}
	if len(st.Added) == 0 {
		return rules, nil, nil
	}
	have, err := sandbox.Routes(0)
	if err != nil {
		return nil, nil, err
	}
	for _, want := range st.Added {
		if want.Protocol == unix.RTPROT_RA || want.Dst.Addr().IsLinkLocalUnicast() {
			continue
		}
		if !slices.ContainsFunc(have, func(r nl.Route) bool {
			return r.Table == want.Table && r.Dst == want.Dst && r.Gateway == want.Gateway && r.Index == want.Index
		}) {
			routes = append(routes, want)
		}
	}
	return rules, routes, nil
}
