package lease

import (
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// position is an open last_reserved_ip file.
type position struct {
	fd   int
	size int
}

func lastName(set int) string { return "last_reserved_ip." + strconv.Itoa(set) }

// Last returns the address that the range set handed out last, or the zero Addr
// where none is known.
func (s *Store) Last(set int) netip.Addr {
	flags := unix.O_RDWR
	if s.reader {
		flags = unix.O_RDONLY
	}
	fd, err := unix.Openat(s.dirfd, lastName(set), flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}
	}
	var buf [64]byte
	n, err := unix.Pread(fd, buf[:], 0)
	s.keep(set, &position{fd, max(n, 0)})
	if err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(string(buf[:n]))
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

func (s *Store) keep(set int, p *position) {
	if s.last == nil {
		s.last = map[int]*position{}
	}
	if had := s.last[set]; had != nil {
		_ = unix.Close(had.fd)
	}
	s.last[set] = p
}

// SetLast remembers the address that the range set handed out. It writes in
// place: a file that is cut to nothing first makes ext4 wait for the disk when it
// is closed. A crash on the way leaves a position that is none, which costs
// nothing but the order.
func (s *Store) SetLast(set int, addr netip.Addr) error {
	name := lastName(set)
	if s.last[set] == nil {
		s.Last(set) // for the length of what is there
	}
	p := s.last[set]
	if p == nil {
		fd, err := unix.Openat(s.dirfd, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return s.pathError("open", name, err)
		}
		s.changed = true
		p = &position{fd: fd}
		s.keep(set, p)
	}
	text := []byte(addr.String())
	if err := pwrite(p.fd, text); err != nil {
		return s.pathError("write", name, err)
	}
	if p.size > len(text) {
		if err := unix.Ftruncate(p.fd, int64(len(text))); err != nil {
			return s.pathError("truncate", name, err)
		}
	}
	p.size = len(text)
	return nil
}
