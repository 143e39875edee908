package bridge

import (
	"context"
	"errors"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
	"github.com/netcleat/netcleat/pkg/veth"
)

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

	bridge, err := ensureBridge(p, &conf)
	if err != nil {
		return nil, err
	}
	key := c.Key("")
	host, sandbox, err := veth.Create(p, veth.Spec{Key: key, MTU: conf.MTU, MAC: conf.mac, Master: bridge})
	if err != nil {
		return nil, err
	}
	steps.Push("delete "+host.Name, func() error { return veth.DeleteEnd(p.Host, host) })

	res := &current.Result{}
	if conf.layer3 {
		if res, err = ipam.Add(ctx, c); err != nil {
			return nil, err
		}
		steps.Push("release addresses", func() error { return ipam.Del(ctx, c) })
	}
	port := conf.port(p, host.Name, host.Index, veth.Alias(key))
	if err := setUpHost(p, &conf, bridge, port, sandbox, res); err != nil {
		return nil, err
	}
	remember(c.Entry, host, sandbox, res)
	if err := c.Entry.Begin(); err != nil {
		return nil, err
	}
	if err := addRules(ctx, c, &conf, sandbox, &steps); err != nil {
		return nil, err
	}
	if !conf.DisableContainerInterface {
		if err := link.Configure(p, conf.setup(sandbox, res)); err != nil {
			return nil, err
		}
	}
	return complete(c, &conf, host, sandbox, res)
}
