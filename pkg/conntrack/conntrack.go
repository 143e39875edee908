// Package conntrack forgets connections that the kernel still sends to where a
// published port no longer leads.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Flow is one direction of a connection.
type Flow struct {
	Proto    uint8
	Src, Dst netip.AddrPort
}

// Conn is a connection: how its first packet looked, and how answers to it look.
type Conn struct {
	Orig, Reply Flow
	tuple       []byte // Orig as the kernel wrote it
	zone        []byte
	id          []byte
}

// From linux/netfilter/nfnetlink_conntrack.h.
const (
	msgGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	msgDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	headerLen = 4 // struct nfgenmsg

	attrOrig   = 1
	attrReply  = 2
	attrID     = 12
	attrZone   = 18
	attrFilter = 25

	filterOrig  = 1
	filterReply = 2

	byProto = 1 << 3 // CTA_FILTER_FLAG(CTA_PROTO_NUM)
	byDst   = 1 << 5 // CTA_FILTER_FLAG(CTA_PROTO_DST_PORT)

	tupleIP    = 1
	tupleProto = 2

	protoNum = 1
	protoSrc = 2
	protoDst = 3
)

// Filter picks connections by how their first packet looked. The kernel (since
// 5.8) does it; an older one lists all.
type Filter struct {
	V6    bool
	Proto uint8
	Port  uint16 // 0 is any
}

// Forget deletes the connections that the filter picks and for which stale
// reports true.
func Forget(g gate.Gate, by Filter, stale func(Conn) bool) (err error) {
	c, err := nl.Dial(nil, unix.NETLINK_NETFILTER, g)
	if err != nil {
		return fmt.Errorf("conntrack: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	list, err := find(c, by)
	if err != nil {
		return fmt.Errorf("conntrack: %w", err)
	}
	var msgs []*nl.Message
	for _, f := range list {
		if f.Orig.Proto != by.Proto || by.Port != 0 && f.Orig.Dst.Port() != by.Port || !stale(f) {
			continue
		}
		m := message("forget connection to "+f.Orig.Dst.String(), by.V6, msgDelete)
		m.Attr(attrOrig|unix.NLA_F_NESTED, f.tuple).Attr(attrID, f.id)
		if f.zone != nil {
			m.Attr(attrZone, f.zone)
		}
		m.Ignore = []unix.Errno{unix.ENOENT}
		msgs = append(msgs, m)
	}
	return c.Do(msgs...)
}

func message(what string, v6 bool, typ uint16) *nl.Message {
	family := uint8(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	return nl.NewMessage(what, typ, 0, family, unix.NFNETLINK_V0, 0, 0)
}

func find(c *nl.Conn, by Filter) (list []Conn, err error) {
	m := message("list connections", by.V6, msgGet)
	m.Query = true
	flags := uint32(byProto)
	m.Begin(attrOrig|unix.NLA_F_NESTED).Begin(tupleProto|unix.NLA_F_NESTED).Uint8(protoNum, by.Proto)
	if by.Port != 0 {
		flags |= byDst
		m.Attr(protoDst, binary.BigEndian.AppendUint16(nil, by.Port))
	}
	m.End().End()
	m.Begin(attrFilter|unix.NLA_F_NESTED).Uint32(filterOrig, flags).Uint32(filterReply, 0).End()
	m.Reply = func(b []byte) error {
		list = append(list, parse(nl.After(b, headerLen)))
		return nil
	}
	return list, c.Dump(m, func() { list = nil })
}

func parse(b []byte) (c Conn) {
	nl.Attrs(b, func(typ uint16, d []byte) {
		switch typ {
		case attrOrig:
			c.Orig, c.tuple = flow(d), append([]byte(nil), d...)
		case attrReply:
			c.Reply = flow(d)
		case attrZone:
			c.zone = append([]byte(nil), d...)
		case attrID:
			c.id = append([]byte(nil), d...)
		}
	})
	return c
}

func flow(b []byte) (f Flow) {
	var src, dst netip.Addr
	var sport, dport uint16
	nl.Attrs(b, func(typ uint16, d []byte) {
		switch typ {
		case tupleIP: // source is attribute 1 or 3, destination 2 or 4
			nl.Attrs(d, func(typ uint16, d []byte) {
				ip, _ := netip.AddrFromSlice(d)
				if typ%2 == 1 {
					src = ip
				} else {
					dst = ip
				}
			})
		case tupleProto:
			nl.Attrs(d, func(typ uint16, d []byte) {
				switch {
				case typ == protoNum:
					f.Proto = nl.Uint8(d)
				case typ == protoSrc && len(d) == 2:
					sport = binary.BigEndian.Uint16(d)
				case typ == protoDst && len(d) == 2:
					dport = binary.BigEndian.Uint16(d)
				}
			})
		}
	})
	f.Src, f.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return f
}
