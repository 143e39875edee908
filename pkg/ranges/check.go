package ranges

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Check asks for the leases of the attachment: of each address of prevResult that
// is in a range, and of one at least.
func Check(ctx context.Context, c *plugin.Call, conf Config) error {
	prev, err := c.PrevResult()
	if err != nil {
		return err
	}
	err = with(ctx, lease.View, place(c, conf), func(s *lease.Store) error {
		leases, err := s.Of(owner(c))
		if err != nil {
			return err
		}
		if len(leases) == 0 {
			return notHeld(c)
		}
		holds := map[netip.Addr]bool{}
		for _, l := range leases {
			holds[l.Addr] = true
		}
		if prev == nil {
			return nil
		}
		for _, ip := range prev.IPs {
			a, _ := netip.AddrFromSlice(ip.Address.IP)
			if a = a.Unmap(); conf.has(a) && !holds[a] {
				return cnierr.Check("host-local: address %s is not held by container %q interface %q", a, c.ContainerID, c.IfName)
			}
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return notHeld(c)
	}
	return err
}

func notHeld(c *plugin.Call) error {
	return cnierr.Check("host-local: Failed to find address added by container %v", c.ContainerID)
}

func (c *Config) has(a netip.Addr) bool {
	for _, s := range c.sets {
		if s.find(a) != nil {
			return true
		}
	}
	return false
}

// Status says whether addresses could be handed out. A full pool is no failure
// unless the configuration wants it: a node that cannot start one more container
// still runs those that it has.
func Status(ctx context.Context, c *plugin.Call, conf Config) error {
	if conf.resolvConf != "" {
		if _, err := os.Stat(conf.resolvConf); err != nil {
			return cnierr.With(cnierr.NotAvailable, fmt.Errorf("resolvConf: %w", err))
		}
	}
	err := unix.Access(conf.dir, unix.W_OK)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing is held; ADD makes it
	}
	if err != nil {
		return cnierr.With(cnierr.NotAvailable, fmt.Errorf("lease directory %s: %w", conf.dir, err))
	}
	if !conf.statusPool {
		return nil
	}
	return with(ctx, lease.View, place(c, conf), func(s *lease.Store) error {
		a := &allocation{store: s, call: c, conf: conf, sets: conf.sets}
		if conf.Owned != nil {
			return nil // the cluster may have more
		}
		for i, set := range conf.sets {
			if _, ok := a.free(set, netip.Addr{}); !ok {
				return cnierr.Newf(cnierr.NotAvailable, "no IP addresses available in range set %d: %s", i, set)
			}
		}
		return nil
	})
}
