// Package hostdevice is the CNI plugin that moves an interface of the host into
// a sandbox, and gives it back as it was.
package hostdevice

import (
	"context"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Plugin is the plugin for the table.
var Plugin = plugin.Spec[config]{
	Name:      name,
	Parse:     parse,
	HasRecord: func(config) bool { return true },
	AddIn: func(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) (*current.Result, error) {
		return sys.attach(ctx, c, p, conf)
	},
	DelIn: func(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) error {
		return sys.detach(ctx, c, p, conf)
	},
	Check:  check,
	Status: func(ctx context.Context, c *plugin.Call, conf config) error { return sys.status(ctx, c, conf) },
	GC:     collect,
}

const (
	name       = "host-device"
	sys  sysfs = "/sys"
)

// status answers STATUS: whether what must be plugged in is, and the IPAM plugin
// knows its part. That a device is not on the host is no reason to say no: some
// container has it.
func (s sysfs) status(ctx context.Context, c *plugin.Call, conf config) error {
	if conf.PCIBusID != "" && !exists(s.pci(conf.PCIBusID)) {
		return cnierr.Newf(cnierr.NotAvailable, "pciBusID %s: no such device", conf.PCIBusID)
	}
	if conf.KernelPath != "" && !exists(s.kernel(conf.KernelPath)) {
		return cnierr.Newf(cnierr.NotAvailable, "kernelpath %s: no such device", conf.KernelPath)
	}
	if !conf.layer3 {
		return nil
	}
	return ipam.Status(ctx, c)
}

// collect answers GC for what has no record: the devices have, so that leaves
// the leases.
func collect(ctx context.Context, c *plugin.Call, conf config) error {
	if !conf.layer3 {
		return nil
	}
	return ipam.GC(ctx, c)
}
