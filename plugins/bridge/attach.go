package bridge

import (
	"context"
	"errors"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
	"github.com/netcleat/netcleat/pkg/veth"
)

// attachment is what an ADD is about, filled in as it goes.
type attachment struct {
	*plugin.Call
	net           *nl.Pair
	conf          *config
	bridge        int // its index
	host, sandbox veth.End
	res           *current.Result
}

// attach answers ADD. The pair comes before the addresses: that the kernel made
// it proves that the sandbox had no such interface, so nobody's lease is touched.
func attach(ctx context.Context, c *plugin.Call, conf config) (_ *current.Result, err error) {
	p, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	var steps undo.Stack
	defer steps.OnError(&err)

	a := &attachment{Call: c, net: p, conf: &conf, res: &current.Result{}}
	if a.bridge, err = ensureBridge(p, &conf); err != nil {
		return nil, err
	}
	a.host, a.sandbox, err = veth.Create(p, veth.Spec{Key: c.Key(""), MTU: conf.MTU, MAC: conf.mac, Master: a.bridge})
	if err != nil {
		return nil, err
	}
	remove := func() error { return veth.DeleteEnd(p.Host, a.host) }
	steps.Push("delete "+a.host.Name, remove)
	if conf.layer3 {
		if a.res, err = ipam.Add(ctx, c); err != nil {
			return nil, err
		}
		steps.Push("release addresses", func() error { return ipam.DelAfter(ctx, c, remove) })
		if conf.mac == nil {
			a.sandbox.MAC = link.MACOf(link.AddrOf(a.res.IPs[0].Address.IP))
		}
	}
	if err := a.setUpHost(); err != nil {
		return nil, err
	}
	if err := a.remember(); err != nil {
		return nil, err
	}
	if err := a.addRules(ctx, &steps); err != nil {
		return nil, err
	}
	if !conf.DisableContainerInterface {
		if err := link.Configure(p, a.setup()); err != nil {
			return nil, err
		}
	}
	return a.result()
}
