// Package scope says which addresses of a subnet belong to one network alone, so
// that a rule for all of them is not a rule for a neighbour's container.
//
// Networks may share a bridge and a subnet, with a part of it each. What a network
// hands out only host-local's configuration says; of other IPAM plugins nothing is
// known, and a container stands for its own address alone.
package scope

import (
	"encoding/json"
	"net/netip"

	"github.com/netcleat/netcleat/pkg/fields"
	"github.com/netcleat/netcleat/pkg/ipmath"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
)

// Scope is the addresses that a network hands out. The zero Scope has none.
type Scope struct{ ranges []span }

// span is some addresses in a row of one family.
type span struct{ first, last netip.Addr }

// rangeConf is a range as host-local's configuration has it.
type rangeConf struct {
	Subnet     netip.Prefix `json:"subnet"`
	RangeStart netip.Addr   `json:"rangeStart"`
	RangeEnd   netip.Addr   `json:"rangeEnd"`
	Gateway    netip.Addr   `json:"gateway"`
}

// Of returns the scope of the network with this configuration, of a plugin that
// calls an IPAM plugin.
func Of(conf json.RawMessage) (s Scope) {
	var c struct {
		IPAM struct {
			rangeConf
			Type   string        `json:"type"`
			Ranges [][]rangeConf `json:"ranges"`
		} `json:"ipam"`
		RuntimeConfig struct {
			IPRanges [][]rangeConf `json:"ipRanges"`
		} `json:"runtimeConfig"`
	}
	o, err := fields.Parse(conf)
	if err != nil || o.Into(&c) != nil || !lease.KeptBy(c.IPAM.Type) {
		return s
	}
	s.add(c.IPAM.rangeConf)
	for _, set := range append(c.RuntimeConfig.IPRanges, c.IPAM.Ranges...) {
		s.add(set...)
	}
	return s
}

// mains are the plugins that a network's other plugins are chained after, and whose
// configuration has its IPAM plugin.
var mains = []string{"bridge", "ptp"}

// OfAttachment returns the scope of the attachment's network, by the record of the
// plugin that made the interface. Without one nothing is known.
func OfAttachment(dir journal.Dir, k journal.Key) Scope {
	for _, plugin := range mains {
		k.Plugin = plugin
		if r, err := dir.Read(k); err == nil {
			return Of(r.Config)
		}
	}
	return Scope{}
}

func (s *Scope) add(ranges ...rangeConf) {
	for _, r := range ranges {
		if r.Subnet.IsValid() {
			s.ranges = append(s.ranges, r.span())
		}
	}
}

// span returns the range with the addresses next to it that no container can have:
// the subnet's first one and its gateway, and the broadcast address.
func (r rangeConf) span() span {
	subnet := r.Subnet.Masked()
	whole := span{subnet.Addr(), ipmath.Last(subnet)}
	s := whole
	if !r.Gateway.IsValid() {
		r.Gateway = subnet.Addr().Next()
	}
	if r.RangeStart.IsValid() {
		s.first = r.RangeStart
	}
	if s.first.Prev() == r.Gateway {
		s.first = r.Gateway
	}
	if s.first.Prev() == whole.first {
		s.first = whole.first
	}
	if r.RangeEnd.IsValid() {
		s.last = r.RangeEnd
	}
	if s.last.Next() == r.Gateway {
		s.last = r.Gateway
	}
	if s.last.Next() == whole.last && whole.last.Is4() {
		s.last = whole.last
	}
	return s
}

// Block returns the largest prefix around a container's address, up to its own
// prefix, of which the network hands out every address: a range takes a few of
// them, and its containers share them. It is the address alone where nothing is known.
func (s Scope) Block(p netip.Prefix) netip.Prefix {
	for _, r := range s.ranges {
		for bits := p.Bits(); bits < p.Addr().BitLen() && r.has(p.Addr()); bits++ {
			block := netip.PrefixFrom(p.Addr(), bits).Masked()
			if r.has(block.Addr()) && r.has(ipmath.Last(block)) {
				return block
			}
		}
	}
	return netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
}

func (s span) has(ip netip.Addr) bool {
	return ip.BitLen() == s.first.BitLen() && !ip.Less(s.first) && !s.last.Less(ip)
}
