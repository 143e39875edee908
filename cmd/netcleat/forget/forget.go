// Package forget removes what is left of a container on a network because the user
// says so: where nothing proves that the container is dead, nothing else does it.
package forget

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/netcleat/netcleat/cmd/netcleat/collect"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/plugins/portmap"
)

// Options say where to look.
type Options struct {
	show.Places
	Plugins collect.Plugins
	Out     io.Writer
	Warn    func(format string, args ...any)
	// Confirm is told what the container is, as far as can be seen, and may refuse.
	Confirm func(evidence.Verdict) error
}

// Run removes the records, links, rules, published ports and leases of the container
// on the network, and what libcni remembers of it. It goes on where one of them fails.
func Run(ctx context.Context, o Options, network, container string) error {
	records, err := o.Journal.Network(network)
	if err != nil {
		o.Warn("%v", err)
	}
	records = slices.DeleteFunc(records, func(r journal.Record) bool { return r.ContainerID != container || r.Network != network })
	if err := o.confirm(records); err != nil {
		return err
	}
	for _, r := range slices.Backward(records) {
		if err := o.Plugins.Del(ctx, r); err != nil {
			o.Warn("%s: %v", r.Plugin, err)
		}
	}
	ports := portmap.Collect(ctx, nil, o.Journal, journal.Key{Network: network, ContainerID: container})
	given, lerr := o.leases(ctx, network, container)
	ends, eerr := links(network, container)
	entered, cerr := chains(ctx, network, container)
	entries, nerr := cached(o.Cache, network, container)
	files, ferr := o.Journal.Forget(network, container)
	for _, name := range slices.Concat(given, ends, entered, entries, files) {
		fmt.Fprintf(o.Out, "removed %s\n", name)
	}
	return errors.Join(ports, lerr, eerr, cerr, nerr, ferr)
}

func (o Options) confirm(records []journal.Record) error {
	judge, err := evidence.New()
	if err != nil {
		return err
	}
	return errors.Join(o.Confirm(judge.Of(records)), judge.Close())
}

// leases gives back what host-local has given to the container.
func (o Options) leases(ctx context.Context, network, container string) (given []string, err error) {
	data := lease.DefaultDir
	all, err := show.Networks(ctx, o.Places)
	if err != nil {
		o.Warn("%v", err)
	}
	for _, n := range all {
		if n.Name == network && n.IPAM.DataDir != "" {
			data = n.IPAM.DataDir
		}
	}
	s, err := lease.Open(ctx, lease.Place{Dir: filepath.Join(data, network), Index: string(o.Journal), Boot: lease.ThisBoot()})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	leases, err := s.All()
	errs := []error{err}
	for _, l := range leases {
		if l.Foreign || l.Owner.ContainerID != container {
			continue
		}
		if err := s.Give(l); err != nil {
			errs = append(errs, err)
			continue
		}
		given = append(given, "lease of "+l.Addr.String())
	}
	return given, errors.Join(errs...)
}
