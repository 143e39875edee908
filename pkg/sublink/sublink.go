// Package sublink gives a sandbox a link made from another one, its master:
// macvlan, ipvlan or vlan. The plugins of those names differ in what they ask
// of the kernel for that link.
package sublink

import (
	"context"
	"errors"
	"fmt"
	"net"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
)

// Conf is the configuration that the plugins share, to be embedded in theirs.
type Conf struct {
	// Master is the link that the sublink is made from; "" is the one with the
	// default route.
	Master string `json:"master"`
	MTU    int    `json:"mtu"` // 0 is the master's
	// LinkInContainer says that Master is in the sandbox.
	LinkInContainer bool `json:"linkInContainer"`
	EnableDAD       bool `json:"enabledad"`
	// AcceptRA leaves IPv6 in the sandbox to the kernel where IPAM gave no
	// address of it; ours, not the reference's.
	AcceptRA bool `json:"acceptRA"`
}

// Validate reports the first field that can never work.
func (c *Conf) Validate() error {
	if c.MTU < 0 {
		return cnierr.Config("invalid MTU %d, must be [0, master MTU]", c.MTU)
	}
	return nil
}

// Spec is a sublink: what the configuration says, and what is particular to the
// plugin.
type Spec struct {
	Conf
	Kind string            // of the link: "macvlan", "ipvlan", "vlan"
	Info func(*nl.Message) // adds the kind's attributes
	MAC  net.HardwareAddr  // of the sublink; nil where it is the master's
	// Alone says that the sublink has no neighbours to announce itself to, nor to
	// ask for duplicate addresses: ipvlan of layer 3.
	Alone bool
	// Shared says that the kernel gives the master's traffic to one kind of
	// sublink, or to a bridge or bond, but not to two of them.
	Shared bool
	// Refuse says why the plugin cannot use the master; nil has no objections. No
	// other attachment of the kind gets the master meanwhile, and whoever has it
	// has a record that says so.
	Refuse func(master *nl.Link) error
	// Prev is the result to build upon, where the plugin is chained; nil is none.
	Prev *current.Result
}

// Attach answers ADD. The link comes before the addresses: that the kernel made
// it proves that the sandbox had no such interface, so nobody's lease is touched.
func Attach(ctx context.Context, c *plugin.Call, p *nl.Pair, s Spec) (_ *current.Result, err error) {
	var steps undo.Stack
	defer steps.OnError(&err)

	m, err := s.prepare(ctx, p, c)
	if err != nil {
		return nil, err
	}
	l, err := link.Create(p, s.link(c, m))
	if err != nil {
		return nil, s.explain(c, m, err)
	}
	remove := func() error { return p.Sandbox.Do(nl.DelLinkIndex(l.Name, l.Index)) }
	steps.Push("delete "+l.Name, remove)

	res, given := s.chained()
	if c.Conf.IPAM.Type != "" {
		if given, err = s.addresses(ctx, p, c); err != nil {
			return nil, err
		}
		steps.Push("release addresses", func() error { return ipam.DelAfter(ctx, c, remove) })
	}
	set := s.setup(l, given)
	if err := link.Configure(p, set); err != nil {
		return nil, s.explain(c, m, err)
	}
	given.Routes = set.Possible()
	link.Record(c.Entry, given.IPs, link.InSandbox(l))
	return s.complete(c, l, res, given), nil
}

// addresses asks the IPAM plugin.
func (s *Spec) addresses(ctx context.Context, p *nl.Pair, c *plugin.Call) (*current.Result, error) {
	if !s.AcceptRA {
		if err := ipam.KeepIPv6Off(p, c); err != nil {
			return nil, err
		}
	}
	return ipam.Add(ctx, c)
}

// prepare finds the master, looks whether it can have the sublink, and writes into
// the attachment's record what is about to be made.
func (s *Spec) prepare(ctx context.Context, p *nl.Pair, c *plugin.Call) (_ *nl.Link, err error) {
	m, err := s.master(p)
	if err != nil {
		return nil, err
	}
	if err := s.fits(c, m); err != nil {
		return nil, err
	}
	if s.Refuse != nil {
		unlock, lerr := c.Journal.Lock(ctx, fmt.Sprintf("%s of link %d", s.Kind, m.Index))
		if lerr != nil {
			return nil, cnierr.With(cnierr.TryAgain, lerr)
		}
		defer func() { err = errors.Join(err, unlock()) }()
		if err := s.Refuse(m); err != nil {
			return nil, err
		}
	}
	mac := s.MAC
	if mac == nil {
		mac = m.MAC
	}
	c.Entry.Links = []journal.Link{{Name: c.IfName, MAC: mac.String(), Kind: s.Kind, Parent: m.Index, Sandbox: true}}
	return m, cnierr.With(cnierr.IOFailure, c.Entry.Begin())
}

func (s *Spec) link(c *plugin.Call, m *nl.Link) link.New {
	return link.New{
		Key: c.Key(""), Kind: s.Kind, MAC: s.MAC, MTU: s.MTU, Info: s.Info,
		Parent: m.Index, ParentInSandbox: s.LinkInContainer,
	}
}

// chained returns the result to build upon, and the addresses in it that wait
// for an interface: where the configuration has no IPAM plugin they are the
// sublink's.
func (s *Spec) chained() (res, given *current.Result) {
	res, given = &current.Result{}, &current.Result{}
	if s.Prev == nil {
		return res, given
	}
	return s.Prev, &current.Result{IPs: s.Prev.IPs, Routes: s.Prev.Routes, DNS: s.Prev.DNS}
}

// setup is what the link is to become.
func (s *Spec) setup(l *nl.Link, given *current.Result) link.Setup {
	set := link.Setup{
		Name: l.Name, Index: l.Index, IPs: given.IPs, Routes: given.Routes,
		DAD: link.OptimisticDAD, MAC: l.MAC, LAN: true, AcceptRA: s.AcceptRA,
	}
	if s.EnableDAD {
		set.DAD = link.WaitDAD
	}
	if s.Alone {
		set.DAD, set.MAC = link.NoDAD, nil
	}
	return set
}

// complete adds the sublink and its addresses to the result.
func (s *Spec) complete(c *plugin.Call, l *nl.Link, res, given *current.Result) *current.Result {
	at := len(res.Interfaces)
	res.Interfaces = append(res.Interfaces, link.Interface(l, c.Netns))
	for _, ip := range given.IPs {
		ip.Interface = current.Int(at)
	}
	if c.Conf.IPAM.Type != "" {
		res.IPs, res.Routes, res.DNS = given.IPs, given.Routes, given.DNS
	}
	link.ChooseDNS(res, c.Conf.DNS)
	return res
}

// Detach answers DEL: the link, and when nothing can answer at the addresses any
// more, the lease. It never looks at the master, which may be gone.
func Detach(ctx context.Context, c *plugin.Call, p *nl.Pair, kind string) (err error) {
	return ipam.DelAfter(ctx, c, func() error {
		if err := link.Remove(p, c, kind); err != nil {
			return err
		}
		link.AnnounceOthers(p)
		return nil
	})
}

// unchecked is the reference's text for a CHECK without prevResult.
func unchecked(kind string) string {
	switch kind {
	case "macvlan":
		return "required prevResult missing"
	case "vlan":
		return "vlan: Required prevResult missing"
	default:
		return "Required prevResult missing"
	}
}

// Check answers CHECK: what ADD made is still so. It returns the sublink for the
// plugin to compare what is particular to it.
func Check(ctx context.Context, c *plugin.Call, s Spec) (l *nl.Link, err error) {
	err = ipam.Check(ctx, c, unchecked(s.Kind), func(p *nl.Pair, res *current.Result) error {
		if want, _ := link.Find(res, c.IfName, c.Netns); want != nil && s.MAC == nil {
			want.Mac = "" // the master's, which may have been given another
		}
		if l, err = link.CheckSandbox(p, c, res, s.Kind); err != nil {
			return err
		}
		return s.compare(c, l)
	})
	return l, err
}

// compare compares what sublinks have beside what all links have.
func (s *Spec) compare(c *plugin.Call, l *nl.Link) error {
	switch {
	case c.Entry != nil && len(c.Entry.Links) > 0 && c.Entry.Links[0].Parent != 0 && c.Entry.Links[0].Parent != l.Parent:
		return cnierr.Check("interface %s has another master than ADD gave it", l.Name)
	case s.MTU != 0 && l.MTU != s.MTU:
		return cnierr.Check("interface %s has MTU %d, not %d", l.Name, l.MTU, s.MTU)
	}
	return nil
}

// Status answers STATUS: whether the kernel has such links, the master is there,
// and the IPAM plugin could serve an ADD. That the master is merely down is no
// reason to say no: kubelet would take the node out of service.
func Status(ctx context.Context, c *plugin.Call, s Spec) (err error) {
	p, err := nl.Open("", c.Gate)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := s.available(p); err != nil {
		return &cnierr.Error{Code: cnierr.NotAvailable, Err: err}
	}
	if c.Conf.IPAM.Type == "" {
		return nil
	}
	return ipam.Status(ctx, c)
}

// Collect answers GC for what has no record: the links have, so that leaves the
// leases.
func Collect(ctx context.Context, c *plugin.Call) error {
	if c.Conf.IPAM.Type == "" {
		return nil
	}
	return ipam.GC(ctx, c)
}
