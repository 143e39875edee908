// Package lease keeps the addresses of a network that are handed out, in the
// file format of the reference's host-local: a directory with a file for each
// address, which holds its owner.
//
// The files are the truth. What a call needs to know of all of them together
// comes from an index beside the journal (see index.go), so that no call reads
// them all. The index proves that it still is right: each Store that changed the
// directory stamps it, when it is closed, with a modification time of random
// nanoseconds, and remembers that in the index. Any change by somebody else,
// whether the reference, an administrator or a restored backup, leaves another
// time, and the index is made anew from the files. Modification times as the
// kernel sets them would not prove it, since two changes within a tick share one.
package lease

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Place says where the leases of a network are, and under which conditions.
type Place struct {
	// Dir is the lease directory: <dataDir>/<network>.
	Dir string
	// Index is the directory for index files, "" where none is to be kept: then
	// every Store reads all files.
	Index string
	// Boot is ThisBoot(), but for tests.
	Boot Boot
	// KeepOld leaves leases of an earlier boot alone.
	KeepOld bool
	// Note is told what is no error. It may be nil.
	Note func(format string, args ...any)
}

// Store is a lease directory, locked.
type Store struct {
	Place
	dirfd, lockfd int
	reader        bool // changes nothing
	creates       bool // makes the directory where there is none
	x             *index
	changed       bool
	unread        []netip.Addr // whose files could not be read
	last          map[int]*position
}

// Lease is an address and who holds it.
type Lease struct {
	Addr  netip.Addr
	Owner Owner
	// Foreign says that what is in the lease's place was not written by a plugin:
	// somebody reserved the address by hand. There is no Owner then.
	Foreign bool
}

// ErrUnread says that the lease of an address could not be read: it may be
// anybody's.
var ErrUnread = errors.New("the lease cannot be read")

// ErrTaken says that an address is held already.
var ErrTaken = errors.New("address is taken")

// Create opens the leases to take one. It makes the directory where there is
// none.
func Create(ctx context.Context, p Place) (*Store, error) {
	return open(ctx, &Store{Place: p, creates: true})
}

// Open opens the leases to give some back. Without a directory, which satisfies
// errors.Is(err, fs.ErrNotExist), none is held.
func Open(ctx context.Context, p Place) (*Store, error) {
	return open(ctx, &Store{Place: p})
}

// View opens the leases to look at them. It changes nothing, not even the index,
// and fails as Open does without a directory.
func View(ctx context.Context, p Place) (*Store, error) {
	p.KeepOld = true
	return open(ctx, &Store{Place: p, reader: true})
}

func open(ctx context.Context, s *Store) (*Store, error) {
	s.dirfd, s.lockfd = -1, -1
	if err := s.enter(ctx); err != nil {
		return nil, errors.Join(err, s.leave())
	}
	if s.loadIndex() {
		return s, nil
	}
	if err := s.rebuild(); err != nil {
		return nil, errors.Join(err, s.leave())
	}
	return s, nil
}

// Close lets the next call in.
func (s *Store) Close() error {
	if s.changed && s.x.mapped {
		s.stamp()
	}
	var errs []error
	for _, p := range s.last {
		errs = append(errs, unix.Close(p.fd))
	}
	return errors.Join(append(errs, s.x.close(), s.leave())...)
}

// stamp makes the proof that the index and the directory belong together. Where
// it cannot, the next call makes the index anew.
func (s *Store) stamp() {
	at := unix.NsecToTimespec(time.Now().Truncate(time.Second).UnixNano() + rand.Int64N(int64(time.Second)))
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	if err := unix.UtimesNanoAt(s.dirfd, ".", []unix.Timespec{omit, at}, 0); err != nil {
		return
	}
	if p, err := proofOf(s.dirfd); err == nil && p[2] == uint64(at.Sec) && p[3] == uint64(at.Nsec) {
		s.x.setProof(p)
	}
}

// Free returns the first address from first to last that nobody holds.
func (s *Store) Free(first, last netip.Addr) (netip.Addr, bool) { return s.x.free(first, last) }

// CountHeld returns how many addresses from first to last are held.
func (s *Store) CountHeld(first, last netip.Addr) uint64 { return s.x.countTaken(first, last) }

// IsHeld reports whether somebody holds the address.
func (s *Store) IsHeld(addr netip.Addr) bool { return s.x.taken(addr.As16()) }

// Take makes addr the owner's. ErrTaken says that somebody holds it: then the
// index, if it said otherwise, has been made anew.
func (s *Store) Take(addr netip.Addr, o Owner) error {
	err := s.create(addr, o)
	if errors.Is(err, unix.EEXIST) {
		if err = s.clear(addr); err == nil {
			err = s.create(addr, o)
		}
	}
	if err != nil {
		return err
	}
	return s.record(o, addr)
}

// create makes the lease file. The tag comes first, so that a file with an owner
// has one; until the one write that follows, the file is empty, which is as good
// as absent.
func (s *Store) create(addr netip.Addr, o Owner) error {
	name := addr.String()
	fd, err := unix.Openat(s.dirfd, name, unix.O_RDWR|unix.O_EXCL|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return s.pathError("create lease", name, err)
	}
	s.changed = true
	s.Boot.tag(fd)
	err = pwrite(fd, []byte(o.String()))
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(s.pathError("write lease", name, err), s.unlink(name))
	}
	return nil
}

// clear makes room for a lease where a file already is: one that is as good as
// absent goes.
func (s *Store) clear(addr netip.Addr) error {
	name := addr.String()
	if _, k := look(s.dirfd, name, s.Boot, make([]byte, 4096)); k == absent {
		return s.unlink(name)
	}
	if s.x.taken(addr.As16()) {
		return ErrTaken
	}
	// Somebody wrote into a file of the directory, which leaves no trace in its
	// modification time.
	if err := s.rebuild(); err != nil {
		return err
	}
	return ErrTaken
}

func (s *Store) record(o Owner, addr netip.Addr) error {
	err := s.x.add(s.x.hash(o.String()), addr.As16())
	if errors.Is(err, errFull) {
		if err = s.grow(); err == nil {
			err = s.x.add(s.x.hash(o.String()), addr.As16())
		}
	}
	if err != nil {
		return errors.Join(err, s.unlink(addr.String()))
	}
	return nil
}

// Of returns the owner's leases. As with the reference, those that name no
// interface are the container's, and so this owner's too. ErrUnread says that there
// may be more, of a family of which the owner has none; what is known is returned all
// the same.
func (s *Store) Of(o Owner) ([]Lease, error) {
	leases, err := s.of(o)
	if errors.Is(err, errCorrupt) {
		if err = s.rebuild(); err == nil {
			leases, err = s.of(o)
		}
	}
	if err != nil {
		return leases, err
	}
	return leases, s.doubt(leases)
}

// doubt is an error where a file that could not be read may be another lease of who
// has these: nobody has two of a family, mostly.
func (s *Store) doubt(leases []Lease) error {
	var errs []error
	for _, a := range s.unread {
		if !slices.ContainsFunc(leases, func(l Lease) bool { return l.Addr.Is4() == a.Is4() }) {
			errs = append(errs, s.pathError("read", a.String(), ErrUnread))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) of(o Owner) ([]Lease, error) {
	var addrs []netip.Addr
	collect := func(a [16]byte) { addrs = append(addrs, netip.AddrFrom16(a).Unmap()) }
	err := s.x.held(s.x.hash(o.String()), collect)
	if o.IfName != "" && err == nil {
		err = s.x.held(s.x.hash(o.ContainerID), collect)
	}
	if err != nil {
		return nil, err
	}
	var leases []Lease
	for _, a := range addrs {
		l, ok := s.At(a)
		if !ok || !o.owns([]byte(l.Owner.String())) {
			return nil, errCorrupt // the index tells of what is not there
		}
		leases = append(leases, l)
	}
	return leases, nil
}

// At returns the lease of an address, as its file says. ok is false where nobody
// holds it.
func (s *Store) At(addr netip.Addr) (_ Lease, ok bool) {
	l, k := s.at(addr)
	return l, k != absent
}

func (s *Store) at(addr netip.Addr) (Lease, kind) {
	content, k := look(s.dirfd, addr.String(), Boot{}, make([]byte, 4096))
	o, _ := parseOwner(content)
	switch k {
	case absent:
		return Lease{}, k
	case foreign, unread:
		return Lease{Addr: addr, Foreign: true}, k
	default:
		return Lease{Addr: addr, Owner: o}, k
	}
}

// Give ends a lease. It is gone already where the address is somebody else's.
func (s *Store) Give(l Lease) error {
	now, k := s.at(l.Addr)
	switch {
	case k == unread:
		return s.pathError("read", l.Addr.String(), ErrUnread)
	case k != absent && now != l:
		return nil
	}
	if err := s.unlink(l.Addr.String()); err != nil {
		return err
	}
	if err := s.x.drop(s.x.hash(l.Owner.String()), l.Addr.As16()); err != nil {
		return s.rebuild()
	}
	return nil
}

func (s *Store) unlink(name string) error {
	s.changed = true
	if err := unix.Unlinkat(s.dirfd, name, 0); err != nil && err != unix.ENOENT {
		return s.pathError("remove lease", name, err)
	}
	return nil
}

// GiveUnless ends the leases of every owner that is not valid, and returns how
// many those were. A lease that names no interface is valid where its container
// is. What was not written by a plugin stays.
func (s *Store) GiveUnless(valid []Owner) (n int, err error) {
	keep := make(map[string]bool, 2*len(valid))
	hashes := make(map[uint64]bool, 2*len(valid))
	for _, o := range valid {
		for _, content := range []string{o.String(), o.ContainerID} {
			keep[content], hashes[s.x.hash(content)] = true, true
		}
	}
	var stale []netip.Addr
	err = s.x.all(func(hash uint64, addr [16]byte) {
		if !hashes[hash] {
			stale = append(stale, netip.AddrFrom16(addr).Unmap())
		}
	})
	if err != nil {
		s.discard()
		return 0, err
	}
	var errs []error
	for _, a := range stale {
		l, k := s.at(a)
		if k == unread {
			errs = append(errs, s.pathError("read", a.String(), ErrUnread))
		}
		if k == absent || l.Foreign || keep[l.Owner.String()] {
			continue
		}
		if err := s.Give(l); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
	}
	for _, a := range s.unread {
		errs = append(errs, s.pathError("read", a.String(), ErrUnread))
	}
	return n, errors.Join(errs...)
}

// discard takes from the index what proves it, so that the next call makes it
// anew.
func (s *Store) discard() {
	s.changed = false // nothing is stamped
	s.x.setProof(proof{})
}

// All returns every lease.
func (s *Store) All() ([]Lease, error) {
	all, err := scan(s.dirfd, Boot{})
	if err != nil {
		return nil, err
	}
	leases := make([]Lease, 0, len(all))
	for _, f := range all {
		o, _ := parseOwner(f.content)
		switch f.kind {
		case held, old:
			leases = append(leases, Lease{Addr: f.addr, Owner: o})
		case foreign, unread:
			leases = append(leases, Lease{Addr: f.addr, Foreign: true})
		}
	}
	return leases, nil
}

func (s *Store) pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: filepath.Join(s.Dir, name), Err: err}
}

func (s *Store) note(format string, args ...any) {
	if s.Note != nil {
		s.Note(format, args...)
	}
}

func pwrite(fd int, b []byte) error {
	for at := 0; at < len(b); {
		n, err := unix.Pwrite(fd, b[at:], int64(at))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("wrote %d of %d bytes", at, len(b))
		}
		at += n
	}
	return nil
}
