package bridge

import (
	"context"
	"errors"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/spoof"
	"github.com/netcleat/netcleat/pkg/undo"
	"github.com/netcleat/netcleat/pkg/veth"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// addRules makes the attachment's firewall rules, before the sandbox's end is up.
func (a *attachment) addRules(ctx context.Context, steps *undo.Stack) error {
	if !ipam.OverLink(a.Call) {
		if err := a.addSpoofCheck(ctx, steps); err != nil {
			return err
		}
	}
	if !a.conf.layer3 {
		return nil
	}
	if err := masq.Settle(ctx, masq.Of(a.Call, a.conf.IPMasqBackend), a.conf.IPMasq, steps); err != nil {
		return err
	}
	return a.addNeighbours(steps)
}

// addSpoofCheck refuses other MAC addresses than the sandbox's, before the sandbox's
// end is up.
func (a *attachment) addSpoofCheck(ctx context.Context, steps *undo.Stack) error {
	if !a.conf.MACSpoofCheck {
		return nil
	}
	takeBack, err := spoof.Add(ctx, a.Gate, port(a.Call), a.sandbox.MAC)
	steps.Push("remove spoof check", takeBack)
	return err
}

// port is the attachment's port of the bridge, as its record names it.
func port(c *plugin.Call) spoof.Port {
	p := spoof.Port{Name: veth.HostName(c.Key("")), ContainerID: c.ContainerID, IfName: c.IfName}
	if c.Entry == nil {
		return p
	}
	for _, l := range c.Entry.Links {
		if !l.Sandbox {
			p.Name = l.Name
		}
	}
	return p
}

// Reconcile restores the rules that an attachment needs, by its record alone.
func Reconcile(ctx context.Context, g gate.Gate, dir journal.Dir, r journal.Record) error {
	return errors.Join(vxlan.Reconcile(ctx, g, r), spoof.Reconcile(ctx, g, r), masq.Reconcile(ctx, g, dir, r))
}

// checkRules compares the attachment's firewall rules with what ADD made. What
// has no record is the reference's, whose CHECK does not look at its rules.
func checkRules(ctx context.Context, c *plugin.Call, conf *config, res *current.Result) error {
	if c.Entry == nil {
		return nil
	}
	if conf.VXLAN != nil {
		if err := conf.VXLAN.CheckGuard(c.Gate, conf.Bridge); err != nil {
			return err
		}
	}
	want, at := link.Find(res, c.IfName, c.Netns)
	if conf.MACSpoofCheck {
		mac, err := link.ParseMAC(want.Mac)
		if err != nil {
			return err
		}
		if err := spoof.Check(ctx, port(c), mac); err != nil {
			return err
		}
	}
	if !conf.layer3 {
		return nil
	}
	a := masq.Of(c, conf.IPMasqBackend)
	a.Addrs = nil
	for _, ip := range link.Owned(res.IPs, at) {
		p, err := link.PrefixOf(ip.Address)
		if err != nil {
			return err
		}
		a.Addrs = append(a.Addrs, p)
	}
	if !conf.IPMasq {
		return masq.CheckExempt(ctx, a)
	}
	return masq.Check(ctx, a)
}
