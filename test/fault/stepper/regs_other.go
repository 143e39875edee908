//go:build !amd64 && !arm64

package stepper

import "golang.org/x/sys/unix"

// legacy is empty: nothing is stepped through on this architecture.
var legacy map[uint64]string

// skip is for architectures of which the registers are known.
func skip(int) error { return unix.ENOTSUP }

// answer is for architectures of which the registers are known.
func answer(int, unix.Errno) error { return unix.ENOTSUP }
