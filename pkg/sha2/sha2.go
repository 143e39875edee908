// Package sha2 makes names out of longer names: SHA-256 and SHA-512 (FIPS
// 180-4), with the results of crypto/sha256 and crypto/sha512.
//
// Those bring the whole of Go's FIPS module into the start of every process,
// which prepares ciphers and entropy whether or not something is hashed (ADR
// 0018). Nothing here is a secret or a signature: use crypto for those.
package sha2

import (
	"encoding/binary"
	"math/bits"
)

// Sum256 returns the SHA-256 of data.
func Sum256(data []byte) (sum [32]byte) {
	var h [8]uint32
	for i, c := range initial {
		h[i] = uint32(c >> 32)
	}
	for p := pad(data, 64); len(p) > 0; p = p[64:] {
		block256(&h, p[:64])
	}
	for i, w := range h {
		binary.BigEndian.PutUint32(sum[4*i:], w)
	}
	return sum
}

// Sum512 returns the SHA-512 of data.
func Sum512(data []byte) (sum [64]byte) {
	h := initial
	for p := pad(data, 128); len(p) > 0; p = p[128:] {
		block512(&h, p[:128])
	}
	for i, w := range h {
		binary.BigEndian.PutUint64(sum[8*i:], w)
	}
	return sum
}

// pad returns a copy of data with a one bit, zeros and its length in bits, in
// whole blocks of size bytes. An eighth of a block is the length's.
func pad(data []byte, size int) []byte {
	n := (len(data) + size/8 + size) / size * size
	p := make([]byte, n)
	copy(p, data)
	p[len(data)] = 0x80
	binary.BigEndian.PutUint64(p[n-8:], uint64(len(data))*8)
	return p
}

func block256(h *[8]uint32, p []byte) {
	rot := func(x uint32, n int) uint32 { return bits.RotateLeft32(x, -n) }
	var w [64]uint32
	for i := range w {
		if i < 16 {
			w[i] = binary.BigEndian.Uint32(p[4*i:])
			continue
		}
		x, y := w[i-15], w[i-2]
		w[i] = w[i-16] + (rot(x, 7) ^ rot(x, 18) ^ x>>3) + w[i-7] + (rot(y, 17) ^ rot(y, 19) ^ y>>10)
	}
	v := *h
	for i, wi := range w {
		a, b, c, e, f, g := v[0], v[1], v[2], v[4], v[5], v[6]
		t := v[7] + (rot(e, 6) ^ rot(e, 11) ^ rot(e, 25)) + (e&f ^ ^e&g) + uint32(constants[i]>>32) + wi
		u := (rot(a, 2) ^ rot(a, 13) ^ rot(a, 22)) + (a&b ^ a&c ^ b&c)
		v = [8]uint32{t + u, a, b, c, v[3] + t, e, f, g}
	}
	for i := range h {
		h[i] += v[i]
	}
}

func block512(h *[8]uint64, p []byte) {
	rot := func(x uint64, n int) uint64 { return bits.RotateLeft64(x, -n) }
	var w [80]uint64
	for i := range w {
		if i < 16 {
			w[i] = binary.BigEndian.Uint64(p[8*i:])
			continue
		}
		x, y := w[i-15], w[i-2]
		w[i] = w[i-16] + (rot(x, 1) ^ rot(x, 8) ^ x>>7) + w[i-7] + (rot(y, 19) ^ rot(y, 61) ^ y>>6)
	}
	v := *h
	for i, wi := range w {
		a, b, c, e, f, g := v[0], v[1], v[2], v[4], v[5], v[6]
		t := v[7] + (rot(e, 14) ^ rot(e, 18) ^ rot(e, 41)) + (e&f ^ ^e&g) + constants[i] + wi
		u := (rot(a, 28) ^ rot(a, 34) ^ rot(a, 39)) + (a&b ^ a&c ^ b&c)
		v = [8]uint64{t + u, a, b, c, v[3] + t, e, f, g}
	}
	for i := range h {
		h[i] += v[i]
	}
}
