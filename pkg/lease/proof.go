package lease

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/sha2"
)

// proof is what a directory looks like when nobody has touched it since: which
// one it is, its stamped modification time, and the time at which it got that,
// which nobody can set. (tar and cp restore modification times.)
type proof [6]uint64

func proofOf(dirfd int) (proof, error) {
	var st unix.Stat_t
	if err := unix.Fstat(dirfd, &st); err != nil {
		return proof{}, err
	}
	return proof{
		uint64(st.Dev), st.Ino, //nolint:unconvert // 32 bits on MIPS
		uint64(st.Mtim.Sec), uint64(st.Mtim.Nsec), uint64(st.Ctim.Sec), uint64(st.Ctim.Nsec),
	}, nil
}

func (x *index) proof() (p proof) {
	for i := range p {
		p[i] = x.get(atProof + 8*i)
	}
	return p
}

func (x *index) setProof(p proof) {
	for i, v := range p {
		x.put(atProof+8*i, v)
	}
}

func (x *index) boot() Boot { return Boot{x.get(atBoot), x.get(atBoot + 8)} }

func (x *index) setBoot(b Boot) {
	x.put(atBoot, b.ID)
	x.put(atBoot+8, b.Machine)
}

// indexPrefix begins the names of index files. No network's name begins with a
// dot, so that they can be where the journal keeps a directory for each.
const indexPrefix = ".leases-"

// indexFile is named after the lease directory's path, so that a directory that
// is made anew has the same.
func (p *Place) indexFile() string {
	if p.Index == "" {
		return ""
	}
	dir, err := filepath.Abs(p.Dir)
	if err != nil {
		return ""
	}
	sum := sha2.Sum256([]byte(dir))
	return filepath.Join(p.Index, indexPrefix+journal.Cut(filepath.Base(dir), 100)+"-"+hex.EncodeToString(sum[:8]))
}

// loadIndex maps the index file. It reports whether that is of the directory as
// it now is.
func (s *Store) loadIndex() bool {
	x, err := mapIndex(s.indexFile())
	if err != nil {
		return false
	}
	now, err := proofOf(s.dirfd)
	if err == nil && x.proof() == now && x.boot() == s.Boot && (s.KeepOld || !x.keptOld()) {
		s.x = x
		return true
	}
	_ = x.close() // a mapping of a file that is of no use
	return false
}

func (x *index) keptOld() bool { return x.mem[atFlags]&flagKeptOld != 0 }

func mapIndex(path string) (*index, error) {
	if path == "" {
		return nil, fs.ErrNotExist
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // the mapping stays
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size < headerSize || st.Size > headerSize+maxCapacity*(entrySize+4+nodeSize) {
		return nil, errCorrupt
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	x, err := load(mem)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(mem))
	}
	x.mapped = true
	return x, nil
}

// rebuild makes the index from the files. On the way leases of an earlier boot
// are reclaimed, since no sandbox outlives a boot, and files that hold nothing.
func (s *Store) rebuild() error {
	all, err := scan(s.dirfd, s.Boot)
	if err != nil {
		return err
	}
	reclaimed, kept := 0, false
	s.unread = nil
	for i := range all {
		f := &all[i]
		switch {
		case f.kind == old && s.KeepOld:
			f.kind, kept = held, true
		case f.kind == old:
			f.kind = absent
			reclaimed++
		case f.kind == unread:
			s.unread = append(s.unread, f.addr)
		}
		if f.kind != absent || s.reader {
			continue
		}
		if err := s.unlink(f.addr.String()); err != nil {
			return err
		}
	}
	if reclaimed > 0 {
		s.note("%s: reclaimed %d leases of an earlier boot", s.Dir, reclaimed)
	}
	x := s.fill(all)
	if kept {
		x.mem[atFlags] |= flagKeptOld
	}
	return s.install(x)
}

func (s *Store) fill(all []found) *index {
	for n, nodes := len(all)+len(all)/2, len(all)/128; ; n, nodes = n*2, nodes*2+64 {
		x := sized(n, nodes)
		x.put(atSeed, rand.Uint64())
		x.setBoot(s.Boot)
		if x.addAll(all) == nil {
			return x
		}
	}
}

func (x *index) addAll(all []found) error {
	for _, f := range all {
		var err error
		switch f.kind {
		case held:
			o, _ := parseOwner(f.content)
			err = x.add(x.hash(o.String()), f.addr.As16())
		case foreign, unread:
			err = x.mark(f.addr.As16())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// install makes x the store's index, and writes it where one can be kept and all
// files could be read. The
// old file, if any, goes by rename, so that whoever has it mapped keeps what it
// has.
func (s *Store) install(x *index) (err error) {
	if s.x != nil {
		err = s.x.close()
	}
	s.x = x
	file := s.indexFile()
	if s.reader || len(s.unread) > 0 || file == "" || s.Boot.ID == 0 || !isLocal(s.dirfd) {
		return err
	}
	if abs, aerr := filepath.Abs(s.Dir); aerr == nil && len(abs) <= maxPath {
		x.setPath(abs)
	}
	mapped, werr := writeIndex(file, x.mem)
	if werr != nil {
		s.note("index of %s: %v (working without)", s.Dir, werr)
		return err
	}
	s.x, s.changed = mapped, true
	return err
}

func writeIndex(file string, mem []byte) (_ *index, err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	_, err = os.Lstat(file)
	first := errors.Is(err, fs.ErrNotExist)
	fresh := file + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(mem)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(fresh, file)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(fresh))
	}
	if first {
		sweep(filepath.Dir(file))
	}
	return mapIndex(file)
}

// sweep removes index files of lease directories that are gone, when another is
// made: networks come and go while a machine is up.
func sweep(dir string) {
	const some = 256 // of them, so that the cost is bounded
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	names, _ := f.Readdirnames(some)
	for _, n := range names {
		if !strings.HasPrefix(n, indexPrefix) {
			continue
		}
		if x, err := mapIndex(filepath.Join(dir, n)); err == nil {
			if _, err := os.Lstat(x.path()); x.path() != "" && errors.Is(err, fs.ErrNotExist) {
				_ = os.Remove(filepath.Join(dir, n)) // it stays, and is tried again
			}
			_ = x.close()
		}
	}
}

// grow makes a larger index, without reading the files again.
func (s *Store) grow() error {
	x, err := s.x.grown()
	if err != nil {
		return s.rebuild()
	}
	return s.install(x)
}
