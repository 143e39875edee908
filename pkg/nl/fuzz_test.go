package nl

import (
	"encoding/binary"
	"testing"

	codec "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// decoders read the bodies of answers.
func decoders() []func([]byte) error {
	return []func([]byte) error{
		func(b []byte) error { _, err := ParseLink(b); return err },
		func(b []byte) error { _, err := ParseAddr(b); return err },
		func(b []byte) error {
			all, err := ParseRoute(b)
			for _, r := range all {
				_ = r.message("add", unix.RTM_NEWROUTE, 0)
			}
			return err
		},
		func(b []byte) error { _, err := ParseTC(b); return err },
		func(b []byte) error { _, err := parseRule(b); return err },
		func(b []byte) error { _, err := parseNeigh(b); return err },
	}
}

// seeds are an answer of each kind, whole, with each attribute empty, and cut.
func seeds() (all [][]byte) {
	body := func(header int, attrs ...uint16) {
		for _, size := range []int{0, 1, 2, 4, 6, 16} {
			m := NewMessage("", unix.RTM_NEWLINK, 0, make([]byte, header)...)
			for _, a := range attrs {
				m.Attr(a, make([]byte, size))
			}
			all = append(all, m.append(nil, 1, 0), m.append(nil, 1, unix.NLM_F_DUMP_INTR))
		}
	}
	body(unix.SizeofIfInfomsg, unix.IFLA_IFNAME, unix.IFLA_OPERSTATE, unix.IFLA_MTU, unix.IFLA_LINKINFO, unix.IFLA_LINK_NETNSID, unix.IFLA_PROP_LIST)
	body(unix.SizeofIfAddrmsg, unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_FLAGS)
	body(unix.SizeofRtMsg, unix.RTA_DST, unix.RTA_GATEWAY, unix.RTA_OIF, unix.RTA_MULTIPATH, unix.RTA_METRICS, unix.FRA_SRC)
	body(codec.SizeofTcMsg, TCAKind, TCAOptions)
	refusal := binary.NativeEndian.AppendUint32(nil, uint32(0xffff_ffed)) // -ENODEV
	for _, size := range []uint32{0, 16, 0x7fff_ffff, 0xffff_ffff} {
		m := NewMessage("", unix.NLMSG_ERROR, 0, append(refusal, make([]byte, unix.SizeofNlMsghdr)...)...)
		binary.NativeEndian.PutUint32(m.body[4:], size)
		m.String(unix.NLMSGERR_ATTR_MSG, "no such device")
		all = append(all, m.append(nil, 1, unix.NLM_F_ACK_TLVS), m.append(nil, 1, unix.NLM_F_ACK_TLVS|unix.NLM_F_CAPPED))
	}
	return all
}

// Whatever an answer says, no decoder reads past its end, and what is not read as
// a whole is an error or nothing.
func FuzzAnswer(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, datagram []byte) {
		for _, decode := range decoders() {
			m := &Message{What: "fuzz", Reply: decode}
			_, _ = (&Conn{}).answers(datagram, 1, []*Message{m})
			_ = decode(datagram)
		}
		Attrs(datagram, func(_ uint16, d []byte) { _, _, _, _ = Uint8(d), Uint16(d), Uint32(d), Uint64(d) })
	})
}

// The kernel reads numbers in its own order, but for those that it declares to be
// in the network's.
func TestByteOrder(t *testing.T) {
	b := binary.NativeEndian.AppendUint16(nil, NetworkOrder(unix.ETH_P_IP))
	if got := binary.BigEndian.Uint16(b); got != unix.ETH_P_IP {
		t.Errorf("a packet socket is bound to protocol %#04x, not %#04x", got, unix.ETH_P_IP)
	}
	info := FilterInfo(7, unix.ETH_P_ALL)
	b = binary.NativeEndian.AppendUint16(nil, uint16(info))
	if got := binary.BigEndian.Uint16(b); info>>16 != 7 || got != unix.ETH_P_ALL {
		t.Errorf("a filter has priority %d and protocol %#04x, not 7 and %#04x", info>>16, got, unix.ETH_P_ALL)
	}
}
