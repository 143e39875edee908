// Package loopback is the CNI plugin that brings a sandbox's loopback interface
// up. Runtimes call it beside every pod's network.
package loopback

import (
	"context"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Plugin is the plugin for the table. It has no configuration of its own, keeps
// no record, and DEL leaves the interface as it is: it belongs to the sandbox,
// which others may share, and goes with it.
var Plugin = plugin.Spec[struct{}]{
	Name:    "loopback",
	Parse:   func(*plugin.Call) (struct{}, error) { return struct{}{}, nil },
	AddIn:   attach,
	CheckIn: check,
}

// The loopback interface is the first of every namespace (since Linux 2.6.39).
const (
	name  = "lo"
	index = 1
)

// attach answers ADD. Bringing the interface up is all there is to undo, and it
// is the last change.
func attach(_ context.Context, c *plugin.Call, p *nl.Pair, _ struct{}) (_ *current.Result, err error) {
	if err := p.Sandbox.Do(nl.SetUp(name, index)); err != nil {
		return nil, err
	}
	if prev, err := c.PrevResult(); prev != nil || err != nil {
		return nil, err
	}
	addrs, err := p.Sandbox.Addrs(index)
	if err != nil {
		return nil, err
	}
	res := &current.Result{Interfaces: []*current.Interface{{Name: name, Mac: "00:00:00:00:00:00", Sandbox: c.Netns}}}
	for _, a := range addrs {
		if a.Prefix.Addr().IsLoopback() {
			res.IPs = append(res.IPs, &current.IPConfig{Interface: current.Int(0), Address: link.IPNet(a.Prefix)})
		}
	}
	return res, nil
}

// check answers CHECK.
func check(_ context.Context, c *plugin.Call, p *nl.Pair, _ struct{}) (err error) {
	l, err := p.Sandbox.LinkByName(name)
	if err != nil {
		return err
	}
	if !l.Up() {
		return cnierr.Check("loopback interface is down")
	}
	return nil
}
