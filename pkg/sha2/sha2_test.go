package sha2_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"testing"

	"github.com/netcleat/netcleat/pkg/sha2"
)

// Every length around the ends of three blocks.
func TestSums(t *testing.T) {
	t.Parallel()
	for n := range 3*128 + 1 {
		same(t, bytes.Repeat([]byte{byte(n), 0xff, 7}, n)[:n])
	}
}

func FuzzSums(f *testing.F) {
	f.Add([]byte("network and container"))
	f.Fuzz(func(t *testing.T, data []byte) { same(t, data) })
}

func same(t *testing.T, data []byte) {
	t.Helper()
	if got, want := sha2.Sum256(data), sha256.Sum256(data); got != want {
		t.Errorf("SHA-256 of % x: got %x, want %x", data, got, want)
	}
	if got, want := sha2.Sum512(data), sha512.Sum512(data); got != want {
		t.Errorf("SHA-512 of % x: got %x, want %x", data, got, want)
	}
}
