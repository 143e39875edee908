package explain

import (
	"encoding/binary"
	"testing"
)

// An answer about a socket is read whole or not at all.
func FuzzSocket(f *testing.F) {
	whole := make([]byte, sizeofDiagMsg)
	binary.BigEndian.PutUint16(whole[portAt:], 8080)
	binary.NativeEndian.PutUint32(whole[inodeAt:], 4711)
	for _, size := range []int{0, portAt + 1, inodeAt, sizeofDiagMsg - 1, sizeofDiagMsg} {
		f.Add(whole[:size])
	}
	f.Add(append(whole, 1, 2, 3))
	f.Fuzz(func(t *testing.T, body []byte) {
		port, inode, ok := parseSocket(body)
		if ok != (len(body) >= sizeofDiagMsg) || !ok && (port != 0 || inode != 0) {
			t.Errorf("%d bytes: port %d, inode %d, %v", len(body), port, inode, ok)
		}
	})
}
