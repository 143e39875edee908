package tap

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
)

// kind is what the kernel calls a tap.
const kind = "tun"

// attach answers ADD. The link comes before the addresses: that the kernel made
// it proves that the sandbox had no such interface, so nobody's lease is touched.
func attach(ctx context.Context, c *plugin.Call, conf config) (_ *current.Result, err error) {
	if conf.within != nil {
		return attachWithin(*conf.within)
	}
	p, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	var steps undo.Stack
	defer steps.OnError(&err)

	bridge, err := conf.findBridge(p)
	if err != nil {
		return nil, err
	}
	l, err := conf.create(ctx, p, c)
	if err != nil {
		return nil, err
	}
	remove := func() error { return p.Sandbox.Do(nl.DelLinkIndex(l.Name, l.Index)) }
	steps.Push("delete "+l.Name, remove)
	if err := conf.setUp(p, l, bridge); err != nil {
		return nil, err
	}
	res := &current.Result{}
	if conf.layer3 {
		if res, err = ipam.Add(ctx, c); err != nil {
			return nil, err
		}
		steps.Push("release addresses", func() error { return ipam.DelAfter(ctx, c, remove) })
	}
	set := conf.setup(l, res)
	if err := link.Configure(p, set); err != nil {
		return nil, err
	}
	res.Routes = set.Possible()
	link.Record(c.Entry, res.IPs, link.InSandbox(l))
	return complete(c, l, res), nil
}

// findBridge returns the bridge in the sandbox, or nil where none is asked for.
func (c *config) findBridge(p *nl.Pair) (*nl.Link, error) {
	if c.Bridge == "" {
		return nil, nil
	}
	l, err := p.Sandbox.LinkByName(c.Bridge)
	if nl.NotFound(err) {
		return nil, cnierr.Config("failed to get bridge %s: no such interface in the sandbox: %w", c.Bridge, err)
	}
	return l, err
}

// create makes the tap under its name, which the sandbox must not have. The
// record has its address before, by which DEL can tell it from any other.
func (c *config) create(ctx context.Context, p *nl.Pair, call *plugin.Call) (*nl.Link, error) {
	mac := c.mac
	if mac == nil {
		mac = link.DerivedMAC(call.Key(""))
	}
	d := device{Name: call.IfName, MAC: mac.String(), MultiQueue: c.MultiQueue, Owner: c.Owner, Group: c.Group}
	if err := link.RequireFree(p.Sandbox, d.Name); err != nil {
		return nil, err
	}
	call.Entry.Links = []journal.Link{{Name: d.Name, MAC: d.MAC, Kind: kind, Sandbox: true}}
	if err := call.Entry.Begin(); err != nil {
		return nil, cnierr.With(cnierr.IOFailure, err)
	}
	what := "create tap " + d.Name
	err := p.Gate.Pass(what)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", what, err)
	case c.SELinuxContext != "":
		err = createLabelled(ctx, p.NS, c.SELinuxContext, d)
	default:
		err = create(p.NS, d)
	}
	if err != nil {
		return nil, err
	}
	l, err := p.Sandbox.LinkByName(d.Name)
	if err != nil {
		return nil, errors.Join(err, p.Sandbox.Do(nl.DelLinkName(d.Name)))
	}
	return l, nil
}

// setUp gives the tap what can only be set once it exists. The bridge is another's:
// it would take its hardware address from the tap, and lower its MTU to the tap's.
// Its own address stays once that is set, and without mtu the tap has its MTU.
func (c *config) setUp(p *nl.Pair, l, bridge *nl.Link) error {
	var batch []*nl.Message
	m := nl.SetLink("set up "+l.Name, l.Index)
	mtu := c.MTU
	if bridge != nil {
		batch = append(batch, nl.SetLink("keep MAC address of "+bridge.Name, bridge.Index).Attr(unix.IFLA_ADDRESS, bridge.MAC))
		m.Uint32(unix.IFLA_MASTER, uint32(bridge.Index))
		mtu = cmp.Or(mtu, bridge.MTU)
	}
	if mtu != 0 {
		m.Uint32(unix.IFLA_MTU, uint32(mtu)) // which the kernel sets before the master
		l.MTU = mtu
	}
	if bridge == nil && mtu == 0 {
		return nil
	}
	return p.Sandbox.Do(append(batch, m)...)
}

// setup is what the tap is to become. Behind it are a virtual machine and nobody
// else who could have its addresses.
func (c *config) setup(l *nl.Link, res *current.Result) link.Setup {
	return link.Setup{Name: l.Name, Index: l.Index, IPs: res.IPs, Routes: res.Routes, LAN: true, AcceptRA: c.AcceptRA}
}

func complete(c *plugin.Call, l *nl.Link, res *current.Result) *current.Result {
	res.Interfaces = []*current.Interface{link.Interface(l, c.Netns)}
	for _, ip := range res.IPs {
		ip.Interface = current.Int(0)
	}
	link.ChooseDNS(res, c.Conf.DNS)
	return res
}
