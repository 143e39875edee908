package bridge

import (
	"cmp"
	"context"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
	"github.com/netcleat/netcleat/pkg/veth"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// attachment is what an ADD is about, filled in as it goes.
type attachment struct {
	*plugin.Call
	net           *nl.Pair
	conf          *config
	bridge        nl.Brief
	uplink        vxlan.Uplink // the zero value: there is none
	host, sandbox veth.End
	res           *current.Result
}

// attach answers ADD. The pair comes before the addresses: that the kernel made
// it proves that the sandbox had no such interface, so nobody's lease is touched.
func attach(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) (_ *current.Result, err error) {
	var steps undo.Stack
	defer steps.OnError(&err)

	a := &attachment{Call: c, net: p, conf: &conf, res: &current.Result{}}
	if err := a.ensureShared(ctx); err != nil {
		return nil, err
	}
	a.host, a.sandbox, err = veth.Create(p, a.pair())
	if err != nil {
		return nil, err
	}
	remove := func() error { return veth.DeleteEnd(p.Host, a.host) }
	steps.Push("delete "+a.host.Name, remove)
	if conf.layer3 {
		if err := a.connectForIPAM(ctx, &steps); err != nil {
			return nil, err
		}
		if a.res, err = ipam.Add(ctx, c); err != nil {
			return nil, err
		}
		steps.Push("release addresses", func() error { return ipam.DelAfter(ctx, c, remove) })
		if a.takesMACOfAddress() {
			a.sandbox.MAC = link.MACOf(link.AddrOf(a.res.IPs[0].Address.IP))
		}
	}
	if err := a.setUpHost(&steps); err != nil {
		return nil, err
	}
	if err := a.remember(); err != nil {
		return nil, err
	}
	if err := a.addRules(ctx, &steps); err != nil {
		return nil, err
	}
	if !conf.DisableContainerInterface {
		set := a.setup()
		if err := link.Configure(p, set); err != nil {
			return nil, err
		}
		a.res.Routes = set.Possible()
	}
	return a.result()
}

// ensureShared makes what the network's containers share.
func (a *attachment) ensureShared(ctx context.Context) (err error) {
	if a.bridge, err = ensureBridge(a.net, a.conf); err != nil || a.conf.VXLAN == nil {
		return err
	}
	return a.ensureUplink(ctx)
}

// pair is the pair to be made. Without mtu it has the bridge's, which the kernel
// would lower. Where the bridge leads to a LAN, the host's end never has less.
func (a *attachment) pair() veth.Spec {
	s := veth.Spec{Key: a.Key(""), MTU: cmp.Or(a.conf.MTU, a.bridge.MTU), MAC: a.conf.mac, Master: a.bridge.Index}
	if !a.conf.IsGateway {
		s.HostMTU = max(s.MTU, a.bridge.MTU)
	}
	if s.MAC == nil && !a.takesMACOfAddress() {
		s.MAC = link.DerivedMAC(s.Key)
	}
	return s
}

// takesMACOfAddress reports whether the sandbox's end is to have the hardware
// address that is made of its address. Where the IPAM plugin asks over the link, it
// is given the address for the hardware address that the link has then.
func (a *attachment) takesMACOfAddress() bool {
	return a.conf.mac == nil && a.conf.layer3 && !ipam.OverLink(a.Call)
}

// connectForIPAM brings the port up before the addresses are known, where the IPAM
// plugin asks for them over the link.
func (a *attachment) connectForIPAM(ctx context.Context, steps *undo.Stack) error {
	if !ipam.OverLink(a.Call) {
		return nil
	}
	if err := a.remember(); err != nil {
		return err
	}
	if err := a.addSpoofCheck(ctx, steps); err != nil {
		return err
	}
	if !a.conf.AcceptRA {
		if err := ipam.KeepIPv6Off(a.net, a.Call); err != nil {
			return err
		}
	}
	return a.net.Host.Do(a.port()...)
}

// port sets up the host's end as a port of the bridge.
func (a *attachment) port() []*nl.Message {
	pc := a.conf.port(a.net, a.host, veth.Alias(a.Key("")))
	if a.conf.isProgrammed() {
		pc.only = a.sandbox.MAC // what is sent to an address that is attached nowhere reaches no container
	}
	return pc.messages()
}
