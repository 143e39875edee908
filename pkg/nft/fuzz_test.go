package nft

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// answer is the body of an answer with the attributes, each of size bytes.
func answer(size int, attrs ...uint16) []byte {
	m := nl.NewMessage("", 0, 0, 0, 0, 0, 0)
	for _, a := range attrs {
		m.Begin(a | unix.NLA_F_NESTED)
		for inner := range uint16(8) {
			m.Begin(inner|unix.NLA_F_NESTED).Attr(inner, make([]byte, size)).End()
		}
		m.End()
	}
	return m.Body()
}

// Whatever an answer says, no decoder reads past its end, and all keys are of the
// set's size.
func FuzzAnswer(f *testing.F) {
	for _, size := range []int{0, 1, 2, 4, 8, 16} {
		f.Add(answer(size, unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_HANDLE, unix.NFTA_RULE_EXPRESSIONS, unix.NFTA_RULE_USERDATA))
		f.Add(answer(size, unix.NFTA_SET_ELEM_LIST_ELEMENTS))
		f.Add(answer(size, unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _, _ = parseRule(body)
		_ = parseChain(body)
		for _, key := range [][]Type{{TypePort}, {TypeIPv4, TypeProto, TypePort}} {
			_, size := concat(key)
			for _, e := range (Set{Key: key}).parseElems(body) {
				if len(e.Key) != int(size) {
					t.Errorf("a key of %d bytes, want %d", len(e.Key), size)
				}
			}
		}
		_ = comment(body)
		attrs(body, func(_ uint16, d []byte) { _, _, _ = u32(d), u64(d), text(d) })
	})
}
