package hostdevice

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// savedConfig are the addresses and routes that a device has on the host and
// loses when it is moved, as the kernel told them. A failed ADD gives them back.
type savedConfig struct{ addrs, routes [][]byte }

// saveConfig reads what is on a link. Most devices that are moved have
// nothing; those without an address are not asked for routes.
func saveConfig(c *nl.Conn, index int) (b savedConfig, err error) {
	if err := c.StrictDumps(); err != nil {
		return b, err
	}
	h := make([]byte, unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	m := nl.NewMessage("list addresses", unix.RTM_GETADDR, 0, h...)
	m.Reply = func(body []byte) error {
		a, err := nl.ParseAddr(body)
		if err == nil && a.Index == index && a.Flags&unix.IFA_F_TEMPORARY == 0 && !a.Prefix.Addr().IsLinkLocalUnicast() {
			b.addrs = append(b.addrs, slices.Clone(body))
		}
		return err
	}
	if err := c.Dump(m, func() { b.addrs = nil }); err != nil || len(b.addrs) == 0 {
		return b, err
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := b.collectRoutes(c, index, family); err != nil {
			return b, err
		}
	}
	return b, nil
}

// collectRoutes reads the routes that somebody added: the kernel's own follow
// from the addresses.
func (b *savedConfig) collectRoutes(c *nl.Conn, index int, family byte) error {
	h := make([]byte, unix.SizeofRtMsg)
	h[0] = family
	before := len(b.routes)
	m := nl.NewMessage("list routes", unix.RTM_GETROUTE, 0, h...)
	m.Reply = func(body []byte) error {
		hops, err := nl.ParseRoute(body)
		if err == nil && len(hops) == 1 && hops[0].Index == index && hops[0].Protocol != unix.RTPROT_KERNEL && hops[0].Type == unix.RTN_UNICAST {
			b.routes = append(b.routes, slices.Clone(body))
		}
		return err
	}
	return c.Dump(m, func() { b.routes = b.routes[:before] })
}

// giveBack puts all of it on the link. What is there already is no error.
func (b *savedConfig) giveBack(c *nl.Conn, l *nl.Link) error {
	var batch []*nl.Message
	add := func(what string, typ uint16, body []byte) {
		m := nl.NewMessage(what+l.Name, typ, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body...)
		m.Ignore = []unix.Errno{unix.EEXIST}
		batch = append(batch, m)
	}
	for _, a := range b.addrs {
		binary.NativeEndian.PutUint32(a[4:], uint32(l.Index))
		add("give address back to ", unix.RTM_NEWADDR, a)
	}
	for _, r := range b.routes {
		const settable = unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE
		binary.NativeEndian.PutUint32(r[8:], nl.Uint32(r[8:])&settable)
		nl.Attrs(nl.After(r, unix.SizeofRtMsg), func(typ uint16, d []byte) {
			if typ == unix.RTA_OIF && len(d) == 4 {
				binary.NativeEndian.PutUint32(d, uint32(l.Index))
			}
		})
		add("give route back to ", unix.RTM_NEWROUTE, r)
	}
	if len(batch) == 0 {
		return nil
	}
	return c.Do(batch...)
}
