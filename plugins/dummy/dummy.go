// Package dummy is the CNI plugin that gives a sandbox an interface that leads
// nowhere: a place for addresses.
package dummy

import (
	"context"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
)

// Plugin is the plugin for the table. It has no configuration of its own.
var Plugin = plugin.Spec[struct{}]{
	Name:      kind,
	Parse:     parse,
	HasRecord: func(struct{}) bool { return true },
	AddIn:     attach,
	DelIn:     detach,
	Check:     check,
	Status:    func(ctx context.Context, c *plugin.Call, _ struct{}) error { return ipam.Status(ctx, c) },
	GC:        collect,
}

const kind = "dummy"

func parse(c *plugin.Call) (conf struct{}, err error) {
	if c.Conf.IPAM.Type == "" {
		return conf, cnierr.Config("dummy interface requires an IPAM configuration")
	}
	return conf, ipam.RefuseDHCP(c)
}

// attach answers ADD. The link comes before the addresses: that the kernel made
// it proves that the sandbox had no such interface, so nobody's lease is touched.
func attach(ctx context.Context, c *plugin.Call, p *nl.Pair, _ struct{}) (_ *current.Result, err error) {
	var steps undo.Stack
	defer steps.OnError(&err)

	spec := link.New{Key: c.Key(""), Kind: kind, MAC: link.DerivedMAC(c.Key(""))}
	c.Entry.Links = []journal.Link{{Name: c.IfName, MAC: spec.MAC.String(), Kind: kind, Sandbox: true}}
	if err := c.Entry.Begin(); err != nil {
		return nil, cnierr.With(cnierr.IOFailure, err)
	}
	l, err := link.Create(p, spec)
	if err != nil {
		return nil, err
	}
	remove := func() error { return p.Sandbox.Do(nl.DelLinkIndex(l.Name, l.Index)) }
	steps.Push("delete "+l.Name, remove)
	res, err := ipam.Add(ctx, c)
	if err != nil {
		return nil, err
	}
	steps.Push("release addresses", func() error { return ipam.DelAfter(ctx, c, remove) })
	setup := link.Setup{Name: l.Name, Index: l.Index, IPs: res.IPs, Routes: res.Routes}
	if err := link.Configure(p, setup); err != nil {
		return nil, err
	}
	res.Routes = setup.Possible()
	link.Record(c.Entry, res.IPs, link.InSandbox(l))
	res.Interfaces = []*current.Interface{link.Interface(l, c.Netns)}
	for _, ip := range res.IPs {
		ip.Interface = current.Int(0)
	}
	link.ChooseDNS(res, c.Conf.DNS)
	return res, nil
}

// detach answers DEL: the link, and when nothing can answer at the addresses any
// more, the lease.
func detach(ctx context.Context, c *plugin.Call, p *nl.Pair, _ struct{}) (err error) {
	return ipam.DelAfter(ctx, c, func() error { return link.Remove(p, c, kind) })
}

// collect answers GC for what has no record: the links have, so that leaves the
// leases.
func collect(ctx context.Context, c *plugin.Call, _ struct{}) error {
	if c.Conf.IPAM.Type == "" {
		return nil
	}
	return ipam.GC(ctx, c)
}

// check answers CHECK: what ADD reported is still so.
func check(ctx context.Context, c *plugin.Call, _ struct{}) error {
	return ipam.Check(ctx, c, "dummy: Required prevResult missing", func(p *nl.Pair, res *current.Result) error {
		_, err := link.CheckSandbox(p, c, res, kind)
		return err
	})
}
