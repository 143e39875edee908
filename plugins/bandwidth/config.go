package bandwidth

import (
	"math"
	"net/netip"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// config says what is limited, in the container's words: it receives ingress.
type config struct {
	Ingress, Egress *limit
	Subnets         subnets
}

// limits reports whether ADD has anything to do.
func (c config) limits() bool { return c.Ingress != nil || c.Egress != nil }

// limit is one direction's.
type limit struct {
	Rate  uint64 `json:"rate"`  // bytes a second
	Burst uint32 `json:"burst"` // bytes
}

// subnets says which peers the limits hold for: all, only those in List, or all
// but those.
type subnets struct {
	Only bool           `json:"only,omitempty"`
	List []netip.Prefix `json:"list,omitempty"`
}

// entry is a set of limits as it is written: in bits.
type entry struct {
	IngressRate     *uint64  `json:"ingressRate"`
	IngressBurst    *uint64  `json:"ingressBurst"`
	EgressRate      *uint64  `json:"egressRate"`
	EgressBurst     *uint64  `json:"egressBurst"`
	ShapedSubnets   []string `json:"shapedSubnets"`
	UnshapedSubnets []string `json:"unshapedSubnets"`
}

func (e entry) namesLimits() bool {
	return e.IngressRate != nil || e.IngressBurst != nil || e.EgressRate != nil || e.EgressBurst != nil
}

func (e entry) namesSubnets() bool { return len(e.ShapedSubnets) > 0 || len(e.UnshapedSubnets) > 0 }

// parse reads the configuration. Limits that it has itself go before the
// runtime's, all four together.
func parse(c *plugin.Call) (conf config, err error) {
	var doc struct {
		entry
		RuntimeConfig struct {
			Bandwidth entry `json:"bandwidth"`
		} `json:"runtimeConfig"`
	}
	if err := c.Decode(&doc); err != nil {
		return config{}, err
	}
	e, runtime := doc.entry, doc.RuntimeConfig.Bandwidth
	if !e.namesLimits() {
		own := e
		e = runtime
		if !e.namesSubnets() {
			e.ShapedSubnets, e.UnshapedSubnets = own.ShapedSubnets, own.UnshapedSubnets
		}
	}
	if conf.Ingress, err = readLimit(e.IngressRate, e.IngressBurst); err != nil {
		return config{}, err
	}
	if conf.Egress, err = readLimit(e.EgressRate, e.EgressBurst); err != nil {
		return config{}, err
	}
	conf.Subnets, err = e.subnets()
	if err != nil {
		return config{}, err
	}
	return conf, nil
}

func readLimit(ratePtr, burstPtr *uint64) (*limit, error) {
	rate, burst := orZero(ratePtr), orZero(burstPtr)
	switch {
	case rate == 0 && burst == 0:
		return nil, nil
	case burst == 0:
		return nil, cnierr.Config("if rate is set, burst must also be set")
	case rate == 0:
		return nil, cnierr.Config("if burst is set, rate must also be set")
	case burst/8 >= math.MaxUint32:
		return nil, cnierr.Config("burst cannot be more than 4GB")
	case rate < 8:
		return nil, cnierr.Config("rate %d: less than a byte a second", rate)
	}
	l := &limit{Rate: rate / 8, Burst: uint32(burst / 8)}
	if unnamed(burst) {
		l.Burst = l.fairBurst()
	}
	return l, nil
}

func orZero(p *uint64) uint64 {
	if p == nil {
		return 0
	}
	return *p
}

// unnamed reports whether the burst is what runtimes send where the pod names
// none: containerd MaxUint32 bits, CRI-O as many bytes less a bit. Taken at its
// word it lets half a gigabyte and more pass before there is any limit.
func unnamed(bits uint64) bool { return bits == math.MaxUint32 || bits == math.MaxUint32*8-1 }

// fairBurst is 10 ms of the rate, and no less than one segment of 64 KiB.
func (l limit) fairBurst() uint32 {
	return uint32(min(max(l.Rate/100, 64<<10), math.MaxUint32))
}

func (e entry) subnets() (s subnets, err error) {
	if len(e.ShapedSubnets) > 0 && len(e.UnshapedSubnets) > 0 {
		return s, cnierr.Config("unshapedSubnets and shapedSubnets cannot be both specified, one of them should be discarded")
	}
	s.Only = len(e.ShapedSubnets) > 0
	for _, t := range append(e.ShapedSubnets, e.UnshapedSubnets...) {
		p, err := netip.ParsePrefix(t)
		if err != nil || p.Addr().Is4In6() {
			return s, cnierr.Config("bad subnet %q provided: not in CIDR notation", t)
		}
		s.List = append(s.List, p.Masked())
	}
	return s, nil
}
