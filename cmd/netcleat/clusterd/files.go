package clusterd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/slot"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// files are this host's: what must survive a boot below dir, what the plugin may use
// below the journal.
type files struct {
	dir     string
	journal journal.Dir
	note    func(format string, args ...any)
}

const (
	memoryFile  = "memory.json"
	networksDir = "networks"
	confSuffix  = ".json"
)

// lock makes the directory this daemon's own.
func (f *files) lock() (unlock func() error, err error) {
	if err := os.MkdirAll(filepath.Join(f.dir, networksDir), 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(f.dir, "lock")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := journal.Flock(ctx, fd); err != nil {
		return nil, errors.Join(fmt.Errorf("another cluster daemon has %s: %w", f.dir, err), unix.Close(fd))
	}
	return func() error { return unix.Close(fd) }, nil
}

func (f *files) load() (m memory, err error) {
	b, err := os.ReadFile(filepath.Join(f.dir, memoryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w", filepath.Join(f.dir, memoryFile), err)
	}
	return m, nil
}

func (f *files) save(m memory) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(f.dir, memoryFile), b)
}

// register remembers a network's configuration, so that after a boot its blocks are
// confirmed before the first ADD.
func (f *files) register(name string, config []byte) error {
	path := filepath.Join(f.dir, networksDir, name+confSuffix)
	if had, err := os.ReadFile(path); err == nil && string(had) == string(config) {
		return nil
	}
	return replaceFile(path, config)
}

// registered returns the networks that this host uses. What cannot be read is noted:
// it comes again with the next ADD.
func (f *files) registered() (pools []*clusterlocal.Pool) {
	entries, err := os.ReadDir(filepath.Join(f.dir, networksDir))
	if err != nil {
		f.note("%v", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), confSuffix) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(f.dir, networksDir, e.Name()))
		if err != nil {
			f.note("%v", err)
			continue
		}
		p, err := clusterlocal.ReadPool(b)
		if err != nil {
			f.note("%s: %v", e.Name(), err)
			continue
		}
		pools = append(pools, p)
	}
	return pools
}

func (f *files) using(p *clusterlocal.Pool) slot.Parts {
	parts, err := clusterlocal.ReadBlocks(string(f.journal), p)
	if err != nil {
		return nil // the plugin does not use it either
	}
	return parts
}

// leaseWait bounds how long the loop waits for an ADD on the network.
const leaseWait = 2 * time.Second

func (f *files) update(p *clusterlocal.Pool, using slot.Parts, change func(view) slot.Parts) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), leaseWait)
	defer cancel()
	s, err := lease.Create(ctx, lease.Place{Dir: p.Dir, Index: string(f.journal), Boot: lease.ThisBoot(), KeepOld: true, Note: f.note})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	next := change(&leases{s, p})
	if sameParts(next, using) && clusterlocal.HasBlocks(string(f.journal), p) {
		return nil
	}
	path := clusterlocal.BlocksFile(string(f.journal), p.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return replaceFile(path, clusterlocal.EncodeBlocks(p, next))
}

func sameParts(a, b slot.Parts) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// leases are a network's, locked.
type leases struct {
	*lease.Store
	pool *clusterlocal.Pool
}

func (l *leases) idle(p slot.Part) bool     { return l.pool.Idle(p, l.Store) }
func (l *leases) free(ps slot.Parts) uint64 { return l.pool.Free(ps, l.Store) }

// replaceFile writes a file durably, whole or not at all.
func replaceFile(path string, content []byte) (err error) {
	fresh := path + ".new"
	fd, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fd.Write(content)
	if err = errors.Join(err, fd.Sync(), fd.Close()); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	if err := os.Rename(fresh, path); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
