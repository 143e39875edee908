// Package dnsname is the chained CNI plugin that gives containers names: on the
// networks that they share they find each other by name and by alias.
//
// The plugin answers no query itself. It writes a record of the attachment, has
// the host's firewall let queries in, and tells `netcleat dns daemon`, which it
// starts where none runs. The daemon listens at the address that the host has on
// the network. See docs/adr/0025.
package dnsname

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
)

// Name is the plugin's.
const Name = "dnsname"

// Plugin is dnsname.
var Plugin = plugin.Spec[config]{
	Name: Name, Since: "0.3.0", Role: plugin.Chained, Parse: parse, HasRecord: func(config) bool { return true },
	Add: add, Del: del, Check: check, Status: status, GC: gc, Restore: Reconcile,
}

// State is what the attachment's record says of its names. The daemon answers by it.
type State struct {
	Domain string `json:"domain,omitempty"`
	// Names are the container's, the first of them its own. Aliases may be those of
	// others, too.
	Names   []string `json:"names,omitempty"`
	Aliases []string `json:"aliases,omitempty"`
	// Addrs are the container's addresses, with the length of the network's prefix.
	Addrs []netip.Prefix `json:"addrs,omitempty"`
	// Gateways are the host's addresses on the network, at which the daemon listens.
	Gateways []netip.Addr `json:"gateways,omitempty"`
	// Link is the host's interface that the container's packets arrive on.
	Link  string `json:"link,omitempty"`
	Index int    `json:"index,omitempty"`
	// Outward says that the network has a way out. Nothing is forwarded for a
	// container that has none.
	Outward   bool             `json:"outward,omitempty"`
	Upstreams []netip.AddrPort `json:"upstreams,omitempty"`
}

// IsOpening reports whether a rule's comment is that of a rule of this plugin.
func IsOpening(comment string) bool { return network(comment) != "" }

func add(ctx context.Context, c *plugin.Call, conf config) (_ *current.Result, err error) {
	prev, err := c.PrevResult()
	if err != nil {
		return nil, err
	}
	if prev == nil {
		return nil, cnierr.Config("must be called as chained plugin")
	}
	st, err := newState(c, conf, prev)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.Entry.SetState(st), c.Entry.Begin()); err != nil {
		return nil, cnierr.With(cnierr.IOFailure, err)
	}
	var steps undo.Stack
	defer steps.OnError(&err)
	again, err := succeed(c)
	if err != nil {
		return nil, cnierr.With(cnierr.TryAgain, err)
	}
	steps.Push("start dnsmasq again", again)
	steps.Push("withdraw names", func() error { return withdraw(context.WithoutCancel(ctx), c, st) })
	if err := opening(c, st).make(ctx); err != nil {
		return nil, err
	}
	if err := c.Gate.Pass("announce names of " + c.ContainerID); err != nil {
		return nil, err
	}
	if err := announce(ctx, c); err != nil {
		return nil, err
	}
	return st.result(prev), nil
}

// newState settles what the record says, before the first change.
func newState(c *plugin.Call, conf config, prev *current.Result) (_ State, err error) {
	st := State{Domain: conf.Domain, Outward: hasDefault(prev), Upstreams: conf.Upstreams}
	host, err := nl.Open("", nil)
	if err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	if err := st.place(host.Host, c.IfName, prev); err != nil {
		return st, err
	}
	if len(st.Gateways) == 0 {
		return st, cnierr.Config("network %s: the host has no address on it that could answer names: set isGateway of bridge, or use ptp (macvlan, ipvlan and networks of layer 2 have no names)", c.Conf.Name)
	}
	st.Names, st.Aliases = names(c, conf)
	return st, nil
}

// result is the previous plugin's with the servers and the domain to search.
// What was there stays, behind.
func (st State) result(prev *current.Result) *current.Result {
	servers := make([]string, 0, len(st.Gateways))
	for _, gw := range st.Gateways {
		servers = append(servers, gw.String())
	}
	prev.DNS.Nameservers = append(servers, prev.DNS.Nameservers...)
	if st.Domain == "" {
		return prev
	}
	prev.DNS.Search = append(prev.DNS.Search, st.Domain)
	if prev.DNS.Domain == "" {
		prev.DNS.Domain = st.Domain
	}
	return prev
}

func del(ctx context.Context, c *plugin.Call, _ config) error {
	if c.Entry == nil || c.Entry.Found == journal.Nothing && !c.Entry.Damaged {
		return withdrawFormer(ctx, c)
	}
	st := State{}
	if err := c.Entry.GetState(&st); err != nil {
		c.Note("dnsname: record: %v (removing without it)", err)
	}
	return withdraw(ctx, c, st)
}

// withdraw has the daemon forget the attachment and closes the firewall behind
// the network's last one. Whatever the daemon reads from here on, the record is
// marked as being removed.
func withdraw(ctx context.Context, c *plugin.Call, st State) error {
	if err := c.Journal.Leave(c.Entry.Key); err != nil {
		return cnierr.With(cnierr.IOFailure, err)
	}
	if err := Tell(ctx, c.Journal, c.Entry.Key); err != nil && !errors.Is(err, ErrNoDaemon) {
		c.Note("dnsname: %v (the daemon forgets the names when it answers again)", err)
	}
	return opening(c, st).remove(ctx)
}

func check(ctx context.Context, c *plugin.Call, _ config) error {
	if err := c.Chained("must be called as chained plugin"); err != nil {
		return err
	}
	if c.Entry == nil {
		return nil // attached by the plugin of podman
	}
	st := State{}
	if err := c.Entry.GetState(&st); err != nil {
		return cnierr.With(cnierr.IOFailure, err)
	}
	if err := opening(c, st).check(ctx); err != nil {
		return err
	}
	return Verify(ctx, c.Journal, c.Key(Name))
}

// status says whether an ADD could work: a daemon answers, or can be started.
func status(ctx context.Context, c *plugin.Call, _ config) error {
	_, err := Ask(ctx, c.Journal, "status")
	if errors.Is(err, ErrNoDaemon) {
		_, err = program()
	}
	return cnierr.With(cnierr.NotAvailable, err)
}

// gc closes the firewall where the network has no attachment left. The records
// of those that are not valid went before.
func gc(ctx context.Context, c *plugin.Call, _ config) error {
	return opening(c, State{}).collect(ctx)
}

// hasDefault reports whether the container has a way out by this network.
func hasDefault(res *current.Result) bool {
	return slices.ContainsFunc(res.Routes, func(r *types.Route) bool {
		ones, _ := r.Dst.Mask.Size()
		return ones == 0 || ones == 1 && !r.Dst.IP.IsUnspecified() // 128.0.0.0/1 is half of a default route
	})
}
