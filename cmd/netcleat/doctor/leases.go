package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/explain"
	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
)

// lockWait bounds how long the leases of a network are waited for.
const lockWait = 5 * time.Second

// leases looks for addresses that no attachment holds.
func (e *exam) leases(ctx context.Context) {
	for _, n := range e.networks {
		if lease.KeptBy(n.IPAM.Driver) {
			if err := e.leasesOf(ctx, n); err != nil {
				e.broken(err)
			}
		}
	}
}

// held returns the leases of a network; exists is false where it never had one.
func (e *exam) held(ctx context.Context, n show.Network) (all []lease.Lease, exists bool, err error) {
	soon, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	s, err := lease.View(soon, lease.Place{Dir: lease.DirOf(n.IPAM.DataDir, n.Name), Index: string(e.Journal), Boot: lease.ThisBoot()})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	all, err = s.All()
	return all, true, errors.Join(err, s.Close())
}

func (e *exam) leasesOf(ctx context.Context, n show.Network) error {
	all, exists, err := e.held(ctx, n)
	if !exists || err != nil {
		return err
	}
	owners := map[lease.Owner]bool{}
	for _, r := range n.Containers {
		owners[lease.Owner{ContainerID: r.Container, IfName: r.Interface}] = true
		owners[lease.Owner{ContainerID: r.Container}] = true
	}
	e.unleased(n, all)
	held := 0
	for _, l := range all {
		e.holders[l.Owner.ContainerID], e.leased[n.Name] = true, true
		switch {
		case l.Foreign:
			e.add(finding.Note, nothing, "network %s: %s was reserved by hand", n.Name, l.Addr)
		case owners[l.Owner]:
			held++
		default:
			e.add(finding.Warning, unsure(n.Name, l.Owner.ContainerID),
				"network %s: %s is held by container %s %s, which neither the journal nor libcni knows", n.Name, l.Addr, l.Owner.ContainerID, l.Owner.IfName)
		}
	}
	e.add(finding.Fine, nothing, "network %s: %d of %d leases are attachments'", n.Name, held, len(all))
	return nil
}

// unleased looks for attachments that live without a lease of their addresses.
func (e *exam) unleased(n show.Network, all []lease.Lease) {
	held := map[string]bool{}
	for _, l := range all {
		held[l.Addr.String()] = true
	}
	for _, r := range n.Containers {
		for _, a := range r.Addresses {
			addr, _, _ := strings.Cut(a, "/")
			if r.Health != show.Healthy || held[addr] || !leases(r, n.IPAM.DataDir) {
				continue
			}
			e.add(finding.Problem, show.TakeLease(filepath.Join(lease.DirOf(n.IPAM.DataDir, n.Name), addr), r), "%s %s %s: has %s without a lease: another container may be given it", n.Name, r.Called(), r.Interface, addr)
			e.said[about(explain.LeaseOf(addr), r)] = true
		}
	}
}

// leases reports whether the attachment's own configuration says that host-local
// keeps its leases there: the network's may have been changed since.
func leases(r show.Row, dataDir string) bool {
	return slices.ContainsFunc(r.Attachment().Records, func(rec journal.Record) bool {
		var conf struct {
			IPAM struct{ Type, DataDir string }
		}
		return json.Unmarshal(rec.Config, &conf) == nil && lease.KeptBy(conf.IPAM.Type) && cmp.Or(conf.IPAM.DataDir, lease.DefaultDir) == dataDir
	})
}
