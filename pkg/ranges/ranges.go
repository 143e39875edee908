package ranges

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/ipmath"
)

// addr is an address as the configuration spells it: absent where it is "" or
// null.
type addr struct{ netip.Addr }

// UnmarshalJSON implements json.Unmarshaler.
func (a *addr) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s == "" {
		*a = addr{}
		return nil
	}
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" || ip.Is4In6() {
		return cnierr.Config("invalid IP address: %s", s)
	}
	*a = addr{ip}
	return nil
}

// prefix is a subnet as the configuration spells it: absent where it is null.
type prefix struct{ netip.Prefix }

// UnmarshalJSON implements json.Unmarshaler.
func (p *prefix) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s == nil {
		*p = prefix{}
		return nil
	}
	n, err := netip.ParsePrefix(*s)
	if err != nil || n.Addr().Is4In6() {
		return cnierr.Config("invalid CIDR address: %s", *s)
	}
	*p = prefix{n}
	return nil
}

// addrRange is some addresses of a subnet.
type addrRange struct {
	Start   addr   `json:"rangeStart"` // the first, inclusive
	End     addr   `json:"rangeEnd"`   // the last, inclusive
	Subnet  prefix `json:"subnet"`
	Gateway addr   `json:"gateway"`
}

// Range is what a range of the configuration comes to, with what that leaves out.
type Range struct {
	Subnet      netip.Prefix
	First, Last netip.Addr // inclusive
	Gateway     netip.Addr // which is not handed out
}

// ReadRange reads a range as the configuration has it: {"subnet": …}.
func ReadRange(raw []byte) (Range, error) {
	var r addrRange
	if err := json.Unmarshal(raw, &r); err != nil {
		return Range{}, err
	}
	if err := r.complete(); err != nil {
		return Range{}, err
	}
	return Range{r.Subnet.Prefix, r.Start.Addr, r.End.Addr, r.Gateway.Addr}, nil
}

// complete checks the range and fills in what it leaves out.
func (r *addrRange) complete() error {
	n := r.Subnet.Prefix
	if !n.IsValid() {
		return cnierr.Config("IP <nil> not v4 nor v6: a range needs a subnet")
	}
	if n.Bits() > n.Addr().BitLen()-2 {
		return cnierr.Config("Network %s too small to allocate from", n)
	}
	if n.Masked() != n {
		return cnierr.Config("Network has host bits set. For a subnet mask of length %d the network address is %s", n.Bits(), n.Masked().Addr())
	}
	if !r.Gateway.IsValid() {
		r.Gateway.Addr = n.Addr().Next()
	}
	if r.Start.IsValid() && !n.Contains(r.Start.Addr) {
		return cnierr.Config("RangeStart %s not in network %s", r.Start, n)
	}
	if !r.Start.IsValid() {
		r.Start.Addr = n.Addr().Next()
	}
	if r.End.IsValid() && (!n.Contains(r.End.Addr) || r.End.Less(r.Start.Addr)) {
		return cnierr.Config("RangeEnd %s not in network %s", r.End, n)
	}
	if !r.End.IsValid() {
		r.End.Addr = lastOf(n)
	}
	return nil
}

// lastOf returns the last address of a subnet that can be handed out: all of an
// IPv6 one can, of an IPv4 one not the broadcast address.
func lastOf(n netip.Prefix) netip.Addr {
	a := ipmath.Last(n)
	if a.Is4() {
		return a.Prev()
	}
	return a
}

func (r *addrRange) contains(a netip.Addr) bool {
	return a.BitLen() == r.Start.BitLen() && !a.Less(r.Start.Addr) && !r.End.Less(a)
}

func (r *addrRange) overlaps(o *addrRange) bool {
	return r.contains(o.Start.Addr) || r.contains(o.End.Addr) || o.contains(r.Start.Addr) || o.contains(r.End.Addr)
}

func (r *addrRange) String() string { return r.Start.String() + "-" + r.End.String() }

// size returns how many addresses can be handed out, or the largest number where
// they are more.
func (r *addrRange) size() uint64 {
	hi, lo := ipmath.Halves(r.End.Addr)
	fromHi, fromLo := ipmath.Halves(r.Start.Addr)
	lo, borrow := bits.Sub64(lo, fromLo, 0)
	hi, _ = bits.Sub64(hi, fromHi, borrow)
	if hi > 0 || lo == 1<<64-1 {
		return 1<<64 - 1
	}
	if r.contains(r.Gateway.Addr) {
		return lo
	}
	return lo + 1
}

// Set is ranges of one family, of which a container gets one address.
type Set []addrRange

func (s Set) complete() error {
	if len(s) == 0 {
		return fmt.Errorf("empty range set")
	}
	for i := range s {
		if err := s[i].complete(); err != nil {
			return err
		}
		if s[i].Start.BitLen() != s[0].Start.BitLen() {
			return fmt.Errorf("mixed address families")
		}
		for j := range s[:i] {
			if s[j].overlaps(&s[i]) {
				return fmt.Errorf("subnets %s and %s overlap", &s[j], &s[i])
			}
		}
	}
	return nil
}

// find returns the range that has the address, or nil.
func (s Set) find(a netip.Addr) *addrRange {
	for i := range s {
		if s[i].contains(a) {
			return &s[i]
		}
	}
	return nil
}

func (s Set) overlaps(o Set) bool {
	for i := range s {
		for j := range o {
			if s[i].overlaps(&o[j]) {
				return true
			}
		}
	}
	return false
}

func (s Set) String() string {
	out := make([]string, len(s))
	for i := range s {
		out[i] = s[i].String()
	}
	return strings.Join(out, ",")
}

// size returns how many addresses the set has.
func (s Set) size() (n uint64) {
	for i := range s {
		sum, carry := bits.Add64(n, s[i].size(), 0)
		if n = sum; carry > 0 {
			return 1<<64 - 1
		}
	}
	return n
}
