package vrf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// state is the plugin's part of the record. The kernel takes a link that goes
// into a VRF, or leaves it, down and up again: IPv6 addresses may get lost, and
// all routes but those to the link's subnets do.
type state struct {
	VRF    string     `json:"vrf"`
	Table  uint32     `json:"table"`
	Index  int        `json:"index"` // of the interface
	Addrs  []nl.Addr  `json:"addrs,omitempty"`
	Routes []nl.Route `json:"routes,omitempty"` // as they were before
}

// observe returns what the link has that the kernel will take from it.
func observe(sandbox *nl.Conn, l *nl.Link, d device, routes []nl.Route) (state, error) {
	st := state{VRF: d.Name, Table: d.Table, Index: l.Index, Routes: carried(routes, l.Index, d.Table)}
	addrs, err := sandbox.Addrs(l.Index)
	for _, a := range addrs {
		if lasting(a) {
			st.Addrs = append(st.Addrs, a)
		}
	}
	return st, err
}

// lasting reports whether the address is a global IPv6 one that the kernel does
// not make by itself.
func lasting(a nl.Addr) bool {
	return a.Prefix.Addr().Is6() && a.Scope == unix.RT_SCOPE_UNIVERSE && a.Flags&unix.IFA_F_PERMANENT != 0
}

// carried returns the link's routes that the kernel does not make by itself,
// those on the link first.
func carried(routes []nl.Route, index int, vrfTable uint32) []nl.Route {
	var all []nl.Route
	for _, r := range routes {
		own := r.Protocol == unix.RTPROT_KERNEL || r.Table == unix.RT_TABLE_LOCAL || r.Table == vrfTable
		if r.Index == index && r.Type == unix.RTN_UNICAST && !own {
			all = append(all, r)
		}
	}
	nl.SortOnLinkFirst(all)
	return all
}

// inside returns the routes as they are in the VRF: those of the main table are
// in the VRF's.
func (st state) inside() []nl.Route {
	all := slices.Clone(st.Routes)
	for i := range all {
		if all[i].Table == unix.RT_TABLE_MAIN {
			all[i].Table = st.Table
		}
	}
	return all
}

// enslave puts the link into the VRF with its addresses and routes.
func (st state) enslave(p *nl.Pair, name string, d device) error {
	what := fmt.Sprintf("put %s into vrf %s", name, d.Name)
	if err := p.Sandbox.Do(nl.SetLink(what, st.Index).Uint32(unix.IFLA_MASTER, uint32(d.Index))); err != nil {
		return err
	}
	return st.restore(p, st.inside())
}

// release takes the link out of the VRF. It has its addresses and routes as
// before.
func (st state) release(p *nl.Pair, name string) error {
	if err := p.Sandbox.Do(leave(name, st.Index)); err != nil {
		return err
	}
	return st.restore(p, st.Routes)
}

// leave takes a link out of the VRF that it is in; one that is gone is success.
func leave(name string, index int) *nl.Message {
	m := nl.SetLink("take "+name+" out of its vrf", index).Uint32(unix.IFLA_MASTER, 0)
	m.Ignore = []unix.Errno{unix.ENODEV}
	return m
}

// restore gives the link the addresses that it has lost, and the routes.
func (st state) restore(p *nl.Pair, routes []nl.Route) error {
	have, err := p.Sandbox.Addrs(st.Index)
	if err != nil {
		return err
	}
	var batch []*nl.Message
	for _, a := range st.Addrs {
		if slices.ContainsFunc(have, func(h nl.Addr) bool { return h.Prefix == a.Prefix }) {
			continue
		}
		batch = append(batch, nl.AddAddr(again(a)))
	}
	if err := p.Sandbox.Do(batch...); err != nil {
		return err
	}
	if err := st.waitForSources(p, routes); err != nil {
		return err
	}
	return p.Sandbox.Do(nl.Hops(routes, nl.ReplaceRoute)...)
}

// again is the address as it is added a second time. What was found to be unique
// needs no second detection.
func again(a nl.Addr) nl.Addr {
	const kept = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_OPTIMISTIC | unix.IFA_F_HOMEADDRESS
	if a.Flags&unix.IFA_F_TENTATIVE == 0 {
		a.Flags |= unix.IFA_F_NODAD
	}
	a.Flags &= kept
	return a
}

// settleWait bounds the wait for duplicate address detection, which takes the
// kernel up to two seconds with its default of one probe.
const settleWait = 10 * time.Second

// waitForSources waits until the addresses can be used that routes name as their
// source: the kernel refuses such a route until then.
func (st state) waitForSources(p *nl.Pair, routes []nl.Route) (err error) {
	sources := map[netip.Addr]bool{}
	for _, r := range routes {
		if r.Source.Is6() {
			sources[r.Source] = true
		}
	}
	if len(sources) == 0 {
		return nil
	}
	w, err := nl.NewWatch(p.NS, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	err = w.Until(time.Now().Add(settleWait), func() (bool, error) {
		addrs, err := p.Sandbox.Addrs(st.Index)
		return usable(addrs, sources), err
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // the route's own refusal says which
	}
	return err
}

func usable(addrs []nl.Addr, sources map[netip.Addr]bool) bool {
	for _, a := range addrs {
		pending := a.Flags&unix.IFA_F_TENTATIVE != 0 && a.Flags&(unix.IFA_F_OPTIMISTIC|unix.IFA_F_DADFAILED) == 0
		if sources[a.Prefix.Addr()] && pending {
			return false
		}
	}
	return true
}
