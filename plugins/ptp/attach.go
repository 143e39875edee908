package ptp

import (
	"context"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
	"github.com/netcleat/netcleat/pkg/veth"
)

// attach answers ADD. The pair comes before the addresses: that the kernel made
// it proves that the sandbox had no such interface, so nobody's lease is touched.
func attach(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) (_ *current.Result, err error) {
	var steps undo.Stack
	defer steps.OnError(&err)

	key := c.Key("")
	host, sandbox, err := veth.Create(p, veth.Spec{Key: key, MTU: conf.MTU, MAC: conf.mac})
	if err != nil {
		return nil, err
	}
	remove := func() error { return veth.DeleteEnd(p.Host, host) }
	steps.Push("delete "+host.Name, remove)
	res, err := ipam.Add(ctx, c)
	if err != nil {
		return nil, err
	}
	steps.Push("release addresses", func() error { return ipam.DelAfter(ctx, c, remove) })
	hops, err := hopsOf(res.IPs)
	if err != nil {
		return nil, err
	}
	remember(c.Entry, host, sandbox, res)
	if err := c.Entry.Begin(); err != nil {
		return nil, cnierr.With(cnierr.IOFailure, err)
	}
	if err := setUpHost(p, &conf, end{host, veth.Alias(key)}, hops); err != nil {
		return nil, err
	}
	if err := masq.Settle(ctx, masq.Of(c, conf.IPMasqBackend), conf.IPMasq, &steps); err != nil {
		return nil, err
	}
	set := conf.setup(host, sandbox, res, hops)
	if err := link.Configure(p, set); err != nil {
		return nil, err
	}
	res.Routes = set.Possible()
	return complete(c, host, sandbox, res), nil
}

// setup is what the sandbox's end is to become: everything but the gateways is
// reached through them.
func (c *config) setup(host, sandbox veth.End, res *current.Result, hops []hop) link.Setup {
	s := link.Setup{
		Name: sandbox.Name, Index: sandbox.Index, IPs: res.IPs, Routes: res.Routes,
		First: sandboxRoutes(sandbox.Index, hops), NoPrefixRoutes: true, AcceptRA: c.AcceptRA,
		Peer: host.Index,
	}
	if c.EnableDAD {
		s.DAD = link.WaitDAD
	}
	return s
}

// remember puts into the attachment's record what it is made of.
func remember(e *journal.Entry, host, sandbox veth.End, res *current.Result) {
	link.Record(
		e, res.IPs,
		journal.Link{Name: host.Name, Index: host.Index, MAC: host.MAC.String(), Kind: "veth"},
		journal.Link{Name: sandbox.Name, Index: sandbox.Index, MAC: sandbox.MAC.String(), Kind: "veth", Sandbox: true},
	)
}

// The places of the interfaces in the result, which callers rely on.
const (
	atHost = iota
	atSandbox
)

// complete adds the interfaces to the IPAM plugin's result.
func complete(c *plugin.Call, host, sandbox veth.End, res *current.Result) *current.Result {
	res.Interfaces = []*current.Interface{
		atHost:    {Name: host.Name, Mac: host.MAC.String(), Mtu: host.MTU},
		atSandbox: {Name: sandbox.Name, Mac: sandbox.MAC.String(), Mtu: sandbox.MTU, Sandbox: c.Netns},
	}
	for _, ip := range res.IPs {
		ip.Interface = current.Int(atSandbox)
	}
	link.ChooseDNS(res, c.Conf.DNS)
	return res
}
