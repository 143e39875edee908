package hostdevice

import (
	"context"
	"errors"
	"fmt"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
)

// attach answers ADD. The device is moved before IPAM is asked, since a DHCP
// server is asked over it.
func (s sysfs) attach(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) (_ *current.Result, err error) {
	var steps undo.Stack
	defer steps.OnError(&err)

	t, err := s.resolve(&conf)
	if err != nil {
		return nil, err
	}
	var l *nl.Link
	back := func() error { return nil }
	if !t.userspace {
		var m move
		if m, err = t.prepare(p, c); err != nil {
			return nil, err
		}
		back = func() error { return m.undo(p, c) }
		steps.Push("give "+m.Name+" back", back)
		if l, err = moveIn(p, &m.device, c.IfName); err != nil {
			return nil, fmt.Errorf("%s: %w", t.words, err)
		}
	}
	res := &current.Result{}
	if l != nil && !conf.AcceptRA {
		if err := ipam.KeepIPv6Off(p, c); err != nil {
			return nil, err
		}
	}
	if conf.layer3 {
		if res, err = ipam.Add(ctx, c); err != nil {
			return nil, err
		}
		steps.Push("release addresses", func() error { return release(ctx, c, back) })
	}
	if l != nil {
		set := conf.setup(l, res)
		if err := link.Configure(p, set); err != nil {
			return nil, err
		}
		res.Routes = set.Possible()
		link.Record(c.Entry, res.IPs, link.InSandbox(l))
	}
	return complete(c, t, l, res), nil
}

// move is a device on its way into the sandbox.
type move struct {
	device
	savedConfig
}

// prepare finds the device and writes what it is like into the attachment's
// record, which from then on can give it back.
func (t target) prepare(p *nl.Pair, c *plugin.Call) (m move, err error) {
	l, err := t.find(p, c)
	if err != nil {
		return m, err
	}
	// The kernel would refuse, too, but only after it moved the device.
	if err := link.RequireFree(p.Sandbox, c.IfName); err != nil {
		return m, err
	}
	m.device = remember(l, t)
	if m.savedConfig, err = saveConfig(p.Host, l.Index); err != nil {
		return m, err
	}
	c.Entry.Links = []journal.Link{{Name: c.IfName, MAC: m.MAC, Kind: m.Kind, Sandbox: true}}
	return m, cnierr.With(cnierr.IOFailure, errors.Join(c.Entry.SetState(m.device), c.Entry.Begin()))
}

// undo gives the device back exactly as it was.
func (m *move) undo(p *nl.Pair, c *plugin.Call) error {
	l, err := bringHome(p, c, &m.device)
	if err != nil || l == nil {
		return err
	}
	return errors.Join(m.restore(p.Host, l), m.giveBack(p.Host, l))
}

func (c *config) setup(l *nl.Link, res *current.Result) link.Setup {
	s := link.Setup{
		Name: l.Name, Index: l.Index, IPs: res.IPs, Routes: res.Routes,
		DAD: link.OptimisticDAD, MAC: l.MAC, LAN: true, AcceptRA: c.AcceptRA,
	}
	if c.EnableDAD {
		s.DAD = link.WaitDAD
	}
	return s
}

// complete makes the result: one interface, which has all the addresses. For a
// driver of userspace it is one by name only.
func complete(c *plugin.Call, t target, l *nl.Link, res *current.Result) *current.Result {
	i := &current.Interface{Name: c.IfName, Sandbox: c.Netns, PciID: t.pci}
	if l != nil {
		i = link.Interface(l, c.Netns)
		i.PciID = t.pci
		if i.PciID == "" && l.Bus == "pci" {
			i.PciID = l.BusAddr
		}
	}
	res.Interfaces = []*current.Interface{i}
	for _, ip := range res.IPs {
		ip.Interface = current.Int(0)
	}
	link.ChooseDNS(res, c.Conf.DNS)
	return res
}
