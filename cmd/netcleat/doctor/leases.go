package doctor

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/lease"
)

// lockWait bounds how long the leases of a network are waited for.
const lockWait = 5 * time.Second

// leases looks for addresses of host-local that no attachment holds.
func (e *exam) leases(ctx context.Context) {
	for _, n := range e.networks {
		if n.IPAM.Driver == "host-local" {
			if err := e.leasesOf(ctx, n); err != nil {
				e.broken(err)
			}
		}
	}
}

func (e *exam) leasesOf(ctx context.Context, n show.Network) (err error) {
	soon, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	dir := filepath.Join(n.IPAM.DataDir, n.Name)
	s, err := lease.View(soon, lease.Place{Dir: dir, Index: string(e.Journal), Boot: lease.ThisBoot()})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing is held yet
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	all, err := s.All()
	if err != nil {
		return err
	}
	owners := map[lease.Owner]bool{}
	for _, r := range n.Containers {
		owners[lease.Owner{ContainerID: r.Container, IfName: r.Interface}] = true
		owners[lease.Owner{ContainerID: r.Container}] = true
	}
	held := 0
	for _, l := range all {
		file := filepath.Join(dir, l.Addr.String())
		switch {
		case l.Foreign:
			e.add(Note, "", "network %s: %s was reserved by hand", n.Name, l.Addr)
		case owners[l.Owner]:
			held++
		default:
			e.add(Warning, "where that container is gone: rm "+file,
				"network %s: %s is held by container %s %s, which neither the journal nor libcni knows", n.Name, l.Addr, l.Owner.ContainerID, l.Owner.IfName)
		}
	}
	e.add(Fine, "", "network %s: %d of %d leases are attachments'", n.Name, held, len(all))
	return nil
}
