package conntrack

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// entry is how the kernel tells of a connection; empty leaves numbers out.
func entry(v6, empty bool) []byte {
	src, dst, first, proto, port := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("192.0.2.9"), uint16(1), []byte{6}, []byte{0x1f, 0x90}
	if v6 {
		src, dst, first = netip.MustParseAddr("fd00::2"), netip.MustParseAddr("2001:db8::9"), 3
	}
	if empty {
		proto, port = nil, nil
	}
	m := nl.NewMessage("", 0, 0)
	for _, dir := range []uint16{attrOrig, attrReply} {
		m.Begin(dir | unix.NLA_F_NESTED)
		m.Begin(tupleIP|unix.NLA_F_NESTED).IP(first, src).IP(first+1, dst).End()
		m.Begin(tupleProto|unix.NLA_F_NESTED).Attr(protoNum, proto).Attr(protoSrc, port).Attr(protoDst, port).End()
		m.End()
	}
	return m.Attr(attrID, []byte{0, 0, 0, 1}).Attr(attrZone, []byte{0, 7}).Body()
}

func TestParse(t *testing.T) {
	c := parse(entry(false, false))
	want := Flow{Proto: 6, Src: netip.MustParseAddrPort("10.0.0.2:8080"), Dst: netip.MustParseAddrPort("192.0.2.9:8080")}
	if c.Orig != want || c.Reply != want || string(c.id) != "\x00\x00\x00\x01" || string(c.zone) != "\x00\x07" {
		t.Errorf("%+v", c)
	}
}

// Whatever an answer says, the decoder does not read past its end.
func FuzzAnswer(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		f.Add(entry(v6, false))
		f.Add(entry(v6, true))
	}
	f.Fuzz(func(_ *testing.T, body []byte) {
		c := parse(nl.After(body, headerLen))
		_, _ = c.Orig.Dst.String(), parse(body)
	})
}
