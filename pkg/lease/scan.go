package lease

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// found is what a scan makes of one file of the directory.
type found struct {
	addr    netip.Addr
	content []byte
	kind    kind
}

type kind uint8

const (
	absent  kind = iota // empty or garbage: the address is free
	held                // an owner's
	foreign             // not a lease, but in its place: the address is taken
	unread              // there, but it could not be read: the address is taken, and the index must not say by whom
	old                 // an owner's of an earlier boot of this machine
)

// parseName returns the address that a file is the lease of. Only the form that
// the reference writes is a lease's name.
func parseName(name string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(name)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	a = a.Unmap()
	return a, a.String() == name
}

// scan reads every file of the lease directory.
func scan(dirfd int, boot Boot) ([]found, error) {
	names, err := list(dirfd)
	if err != nil {
		return nil, err
	}
	all := make([]found, 0, len(names))
	for _, n := range names {
		if a, ok := parseName(n); ok {
			all = append(all, found{addr: a})
		}
	}
	read := func(part []found) {
		buf := make([]byte, 4096)
		for i := range part {
			part[i].content, part[i].kind = look(dirfd, part[i].addr.String(), boot, buf)
		}
	}
	const enough = 512 // files for which a thread is worth starting
	workers := min(runtime.GOMAXPROCS(0), 4, len(all)/enough+1)
	var wg sync.WaitGroup
	for w := range workers {
		part := all[len(all)*w/workers : len(all)*(w+1)/workers]
		wg.Go(func() { read(part) })
	}
	wg.Wait()
	return all, nil
}

func list(dirfd int) ([]string, error) {
	fd, err := unix.Openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("read lease directory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "leases")
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

// look reads one file and says what it is.
func look(dirfd int, name string, boot Boot, buf []byte) ([]byte, kind) {
	fd, err := openLease(dirfd, name)
	if errors.Is(err, unix.ENOENT) {
		return nil, absent
	}
	if err != nil {
		return nil, obstacle(err)
	}
	content, err := readAll(fd, buf)
	k := held
	switch {
	case err != nil:
		k = obstacle(err)
	case isOwner(content) && boot.isOld(fd):
		k = old
	case isOwner(content):
	case isGarbage(content):
		k = absent
	default:
		k = foreign
	}
	if err := unix.Close(fd); err != nil {
		k = unread
	}
	return content, k
}

// obstacle says what cannot be opened or read: something else than a plain file, or
// one that perhaps can be the next time.
func obstacle(err error) kind {
	for _, e := range []unix.Errno{unix.ELOOP, unix.ENXIO, unix.EISDIR, unix.EFBIG} {
		if errors.Is(err, e) {
			return foreign
		}
	}
	return unread
}

func isOwner(content []byte) bool {
	_, ok := parseOwner(content)
	return ok
}

// openLease opens a file of the directory to read it; what is not a plain file
// must neither be followed nor block.
func openLease(dirfd int, name string) (int, error) {
	return unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// maxLease bounds what is read of a lease file. Container IDs have no limit, but
// a plugin's environment has.
const maxLease = 1 << 20

// readAll reads fd from its beginning. It returns a copy of what it read into
// buf.
func readAll(fd int, buf []byte) ([]byte, error) {
	var all []byte
	for len(all) < maxLease {
		n, err := unix.Pread(fd, buf, int64(len(all)))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, buf[:n]...)
		if n < len(buf) {
			return all, nil
		}
	}
	return nil, unix.EFBIG
}
