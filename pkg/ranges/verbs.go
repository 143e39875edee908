// Package ranges hands out addresses of ranges, which the plugins host-local and
// cluster-local do. Leases are files (pkg/lease).
package ranges

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// lockWait bounds how long a call waits for others on the same network.
const lockWait = 60 * time.Second

func place(c *plugin.Call, conf Config) lease.Place {
	return lease.Place{Dir: conf.dir, Index: string(c.Journal), Boot: lease.ThisBoot(), KeepOld: !conf.reclaim, Note: c.Note}
}

func owner(c *plugin.Call) lease.Owner {
	return lease.Owner{ContainerID: c.ContainerID, IfName: c.IfName}
}

// opener is one of lease.Create, lease.Open and lease.View.
type opener func(context.Context, lease.Place) (*lease.Store, error)

// with runs fn on the network's leases, opened by open.
func with(ctx context.Context, open opener, p lease.Place, fn func(*lease.Store) error) error {
	soon, cancel := journal.LazyTimeout(ctx, lockWait)
	defer cancel()
	s, err := open(soon, p)
	if busy := (*lease.BusyError)(nil); errors.As(err, &busy) {
		return cnierr.With(cnierr.TryAgain, err)
	}
	if err != nil {
		return cnierr.With(cnierr.IOFailure, err)
	}
	err = fn(s)
	if cerr := s.Close(); cerr != nil {
		p.Note("leases of %s: %v", p.Dir, cerr) // what was done is in the files
	}
	return err
}

// Add takes an address of each range set.
func Add(ctx context.Context, c *plugin.Call, conf Config) (*current.Result, error) {
	res := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: conf.routes}
	if conf.resolvConf != "" {
		dns, err := readResolvConf(conf.resolvConf)
		if err != nil {
			return nil, err
		}
		res.DNS = dns
	}
	wanted, err := conf.assign()
	if err != nil {
		return nil, err
	}
	a := &allocation{call: c, conf: conf, owner: owner(c)}
	take := func(s *lease.Store) (err error) {
		a.store, a.sets, a.healed = s, conf.sets, false
		if conf.Owned != nil {
			if a.sets, err = conf.Owned(conf.sets); err != nil {
				return err
			}
		}
		res.IPs, err = a.run(wanted)
		return err
	}
	err = with(ctx, lease.Create, place(c, conf), take)
	if err != nil && a.unpublish(ctx) {
		err = with(ctx, lease.Create, place(c, conf), take)
	}
	if err != nil {
		return nil, err
	}
	return res, nil
}

// Del gives back what the attachment holds. As with the reference, leases that
// name no interface are given back where there are no others.
func Del(ctx context.Context, c *plugin.Call, conf Config) error {
	err := with(ctx, lease.Open, place(c, conf), func(s *lease.Store) error {
		leases, err := s.Of(owner(c))
		if err != nil && !errors.Is(err, lease.ErrUnread) {
			return err
		}
		named := 0
		for _, l := range leases {
			if l.Owner.IfName != "" {
				named++
			}
		}
		errs := []error{cnierr.With(cnierr.IOFailure, err)}
		for _, l := range leases {
			if l.Owner.IfName != "" || named == 0 {
				errs = append(errs, cnierr.With(cnierr.IOFailure, s.Give(l)))
			}
		}
		return errors.Join(errs...)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// GC gives back what belongs to no valid attachment.
func GC(ctx context.Context, c *plugin.Call, conf Config) error {
	err := with(ctx, lease.Open, place(c, conf), func(s *lease.Store) error {
		living, err := c.ValidAttachments()
		if err != nil {
			return err
		}
		owners := make([]lease.Owner, len(living))
		for i, a := range living {
			owners[i] = lease.Owner{ContainerID: a.ContainerID, IfName: a.IfName}
		}
		n, err := s.GiveUnless(owners)
		if n > 0 {
			c.Note("%s: gave back %d leases", conf.dir, n)
		}
		return cnierr.With(cnierr.IOFailure, err)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("leases of %s: %w", c.Conf.Name, err)
	}
	return nil
}
