package nl

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"

	codec "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Rule is a policy routing rule that looks up Table for what comes from Src and
// goes to Dst.
type Rule struct {
	Src      netip.Prefix // invalid: from anywhere
	Dst      netip.Prefix // invalid: to anywhere; only read
	Table    uint32
	Priority uint32 // 0 when adding: before all others but the local table's
	IPv6     bool
}

// From returns the rule that looks up table for what comes from the address.
func From(src netip.Addr, table uint32) Rule {
	return Rule{Src: netip.PrefixFrom(src, src.BitLen()), Table: table, IPv6: src.Is6()}
}

// String returns the rule as ip(8) would write it.
func (r Rule) String() string {
	src := "all"
	if r.Src.IsValid() {
		src = r.Src.String()
	}
	if r.Dst.IsValid() {
		src += " to " + r.Dst.String()
	}
	return fmt.Sprintf("from %s lookup %d", src, r.Table)
}

func (r Rule) message(what string, typ, flags uint16) *Message {
	h := unix.RtMsg{Family: unix.AF_INET, Type: codec.FR_ACT_TO_TBL}
	if r.IPv6 {
		h.Family = unix.AF_INET6
	}
	if r.Src.IsValid() {
		h.Src_len = uint8(r.Src.Bits())
	}
	if r.Table <= math.MaxUint8 {
		h.Table = uint8(r.Table)
	}
	m := NewMessage(what+" "+r.String(), typ, flags, rtmsg(h)...)
	if r.Src.IsValid() {
		m.IP(unix.FRA_SRC, r.Src.Addr())
	}
	m.Uint32(unix.FRA_TABLE, r.Table)
	if r.Priority != 0 {
		m.Uint32(unix.FRA_PRIORITY, r.Priority)
	}
	return m
}

// AddRule adds a rule.
func AddRule(r Rule) *Message {
	return r.message("add rule", unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
}

// DelRule removes a rule; one that is gone is success.
func DelRule(r Rule) *Message {
	m := r.message("delete rule", unix.RTM_DELRULE, 0)
	m.Ignore = []unix.Errno{unix.ENOENT}
	return m
}

// Rules returns the rules of both families. Where the kernel has no IPv6 there
// are none of its family.
func (c *Conn) Rules() ([]Rule, error) {
	var all []Rule
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var some []Rule
		m := NewMessage("list rules", unix.RTM_GETRULE, 0, rtmsg(unix.RtMsg{Family: fam})...)
		m.Reply = func(b []byte) error {
			r, err := parseRule(b)
			if err == nil && r.IPv6 == (fam == unix.AF_INET6) {
				some = append(some, r)
			}
			return err
		}
		err := c.Dump(m, func() { some = nil })
		if fam == unix.AF_INET6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)) {
			err = nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// parseRule reads the body of an RTM_NEWRULE message.
func parseRule(b []byte) (Rule, error) {
	if len(b) < unix.SizeofRtMsg {
		return Rule{}, errors.New("rule message cut short")
	}
	h := codec.DeserializeRtMsg(b)
	r := Rule{Table: uint32(h.Table), IPv6: h.Family == unix.AF_INET6}
	Attrs(b[unix.SizeofRtMsg:], func(typ uint16, d []byte) {
		switch typ {
		case unix.FRA_SRC:
			a, _ := netip.AddrFromSlice(d)
			r.Src = netip.PrefixFrom(a, int(h.Src_len))
		case unix.FRA_DST:
			a, _ := netip.AddrFromSlice(d)
			r.Dst = netip.PrefixFrom(a, int(h.Dst_len))
		case unix.FRA_TABLE:
			r.Table = cmp.Or(Uint32(d), r.Table)
		case unix.FRA_PRIORITY:
			r.Priority = Uint32(d)
		}
	})
	return r, nil
}
