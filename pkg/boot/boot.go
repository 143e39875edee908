// Package boot tells one boot from another, and one machine.
package boot

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/sha2"
)

// Where the system tells.
const (
	bootIDFile    = "/proc/sys/kernel/random/boot_id"
	machineIDFile = "/etc/machine-id"
)

// ID is the running boot's, or 0 where the system does not tell.
func ID() uint64 { return fingerprint(bootIDFile) }

// Earlier reports whether the ID is of an earlier boot. An unknown one is not.
func Earlier(id uint64) bool {
	now := ID()
	return id != 0 && now != 0 && id != now
}

// Machine is the machine's ID, or 0 where the system does not tell.
func Machine() uint64 { return fingerprint(machineIDFile) }

// fingerprint hashes what the file says, or is 0 where that is less than the 32
// hex digits that both identities have.
func fingerprint(path string) uint64 {
	var buf [64]byte
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	n, err := unix.Read(fd, buf[:])
	_ = unix.Close(fd) // nothing was written
	text := bytes.TrimSpace(buf[:max(n, 0)])
	if err != nil || len(text) < 32 {
		return 0
	}
	sum := sha2.Sum256(text)
	return binary.LittleEndian.Uint64(sum[:])
}
