package remove

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/lease"
)

// lockWait bounds how long the leases of a network are waited for.
const lockWait = 5 * time.Second

// leases are a network's, locked. The zero value is of one that has none.
type leases struct {
	dir   string
	store *lease.Store
	held  []string // addresses
}

func (o Options) leases(ctx context.Context, n show.Network) (l leases, err error) {
	if !lease.KeptBy(n.IPAM.Driver) {
		return l, nil
	}
	soon, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	dir := filepath.Join(n.IPAM.DataDir, n.Name)
	s, err := lease.View(soon, lease.Place{Dir: dir, Index: string(o.Journal), Boot: lease.ThisBoot()})
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	all, err := s.All()
	if err != nil {
		return l, errors.Join(err, s.Close())
	}
	l = leases{dir: dir, store: s}
	for _, held := range all {
		l.held = append(l.held, held.Addr.String())
	}
	return l, nil
}

func (l leases) close() error {
	if l.store == nil {
		return nil
	}
	return l.store.Close()
}

// remove removes a directory that holds no lease: host-local's own files, and
// where nothing else is in it the directory. Whoever waits for its lock finds out
// that it is gone.
func (l leases) remove() error {
	if l.store == nil || len(l.held) > 0 {
		return nil
	}
	files, err := os.ReadDir(l.dir)
	errs := []error{err}
	for _, f := range files {
		if f.Name() == "lock" || strings.HasPrefix(f.Name(), "last_reserved_ip.") {
			errs = append(errs, os.Remove(filepath.Join(l.dir, f.Name())))
		}
	}
	if err := os.Remove(l.dir); !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
