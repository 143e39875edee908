// Package hostlocal is the IPAM plugin host-local: it hands out addresses of
// ranges that belong to this host, and keeps them in files.
package hostlocal

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

// Plugin is host-local. It keeps no record in the journal: its leases are one.
var Plugin = plugin.Spec[config]{
	Name:   "host-local",
	Role:   plugin.IPAM,
	Parse:  parse,
	Add:    add,
	Del:    del,
	Check:  check,
	Status: status,
	GC:     gc,
}

// lockWait bounds how long a call waits for others on the same network.
const lockWait = 60 * time.Second

func place(c *plugin.Call, conf config) lease.Place {
	return lease.Place{Dir: conf.dir, Index: string(c.Journal), Boot: lease.ThisBoot(), KeepOld: !conf.reclaim, Note: c.Note}
}

func owner(c *plugin.Call) lease.Owner {
	return lease.Owner{ContainerID: c.ContainerID, IfName: c.IfName}
}

// opener is one of lease.Create, lease.Open and lease.View.
type opener func(context.Context, lease.Place) (*lease.Store, error)

// with runs fn on the network's leases, opened by open.
func with(ctx context.Context, open opener, p lease.Place, fn func(*lease.Store) error) error {
	soon, cancel := journal.Patience(ctx, lockWait)
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

func add(ctx context.Context, c *plugin.Call, conf config) (*current.Result, error) {
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
	err = with(ctx, lease.Create, place(c, conf), func(s *lease.Store) (err error) {
		a := &allocation{store: s, call: c, conf: conf, owner: owner(c)}
		res.IPs, err = a.run(wanted)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// del gives back what the attachment holds. As with the reference, leases that
// name no interface are given back where there are no others.
func del(ctx context.Context, c *plugin.Call, conf config) error {
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

func gc(ctx context.Context, c *plugin.Call, conf config) error {
	err := with(ctx, lease.Open, place(c, conf), func(s *lease.Store) error {
		living, err := c.Living()
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
