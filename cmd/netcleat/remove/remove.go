// Package remove removes networks that nothing is attached to, with what they
// leave on the host: the bridge and the directory of leases.
//
// It looks at all of that before it removes anything, and removes the network's
// file last, so that what fails can be tried again. Firewall rules are none of it:
// they go with a network's last attachment.
package remove

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
	"github.com/netcleat/netcleat/cmd/netcleat/create"
	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

// Options say where to look.
type Options struct {
	show.Places
	Out io.Writer
	// Warn is told what stays, and what could not be read.
	Warn func(format string, args ...any)
	// Force also removes what netcleat network create did not make, and networks
	// of which addresses are held, and passes over networks that do not exist.
	Force bool
	// Cluster removes networks that the cluster's daemon has made, and no others.
	Cluster bool
}

// Run removes the networks of those names. It goes on where one cannot be.
func Run(ctx context.Context, o Options, names []string) (err error) {
	unlock, err := create.Lock(ctx, o.NetConf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	all := o.networks(ctx)
	var errs []error
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		n, err := show.FindNetwork(all, name)
		switch {
		case err == nil:
			err = o.remove(ctx, n, all)
		case o.Force: // as docker network rm --force does
			o.Warn("%v", err)
			err = nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Prune removes the networks that netcleat network create made and that nothing is
// attached to, if confirm says so.
func Prune(ctx context.Context, o Options, confirm func(names []string) error) error {
	o.Force = false
	var names []string
	for _, n := range o.networks(ctx) {
		if ours, err := o.made(n); err != nil || !ours || len(n.Containers) > 0 {
			continue // what cannot be read has been told
		}
		names = append(names, n.Name)
	}
	if len(names) == 0 {
		return nil
	}
	if err := confirm(names); err != nil {
		return err
	}
	return Run(ctx, o, names)
}

func (o Options) networks(ctx context.Context) []show.Network {
	all, err := show.Networks(ctx, o.Places)
	if err != nil {
		o.Warn("not everything could be read: %v", err)
	}
	return all
}

// made reports whether netcleat network create made the network, or the cluster's
// daemon.
func (o Options) made(n show.Network) (bool, error) {
	switch {
	case n.File == "":
		return false, nil
	case o.Cluster:
		text, err := os.ReadFile(n.File)
		return overlay.Made(text), err
	}
	return create.Made(n.File)
}

// remove removes one network. all are those that there are.
func (o Options) remove(ctx context.Context, n show.Network, all []show.Network) (err error) {
	if err := o.unused(n); err != nil {
		return err
	}
	ours, err := o.made(n)
	if err != nil {
		return err
	}
	if !ours && !o.Force {
		return fmt.Errorf("network %s: %s is not of netcleat network create: what made it removes it, or --force does", n.Name, n.File)
	}
	leases, err := o.leases(ctx, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leases.close()) }()
	if held := leases.held; len(held) > 0 && !o.Force {
		return fmt.Errorf("network %s: %s is held by a container that nobody remembers (netcleat doctor), or somebody has reserved it: --force leaves it", n.Name, held[0])
	}
	bridge, err := o.bridge(n, all)
	if err != nil {
		return err
	}
	if ours {
		err = bridge.remove(ctx)
	}
	if err = errors.Join(err, leases.remove()); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	if err := os.Remove(n.File); err != nil {
		return err
	}
	fmt.Fprintln(o.Out, n.Name)
	return nil
}

// Unused refuses a network that something is attached to on this host.
func (o Options) Unused(ctx context.Context, name string) error {
	n, err := show.FindNetwork(o.networks(ctx), name)
	if err != nil {
		return err
	}
	return o.unused(n)
}

// some is how many attachments are named.
const some = 5

// unused refuses a network that something is attached to, or that has no file.
func (o Options) unused(n show.Network) error {
	if len(n.Containers) == 0 && n.File == "" {
		return fmt.Errorf("network %s: has no file in %s", n.Name, o.NetConf)
	}
	if len(n.Containers) == 0 {
		return nil
	}
	var names []string
	dead := 0
	for i, r := range n.Containers {
		if _, _, ours := attached.Connected(r.Container); r.Health == show.Dead || ours && r.Health == show.Unseen {
			dead++
		}
		if i < some {
			names = append(names, r.Interface+" of "+r.Called())
		}
	}
	if more := len(n.Containers) - some; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	mend := "their runtime or netcleat network disconnect detaches them"
	if dead > 0 {
		mend += fmt.Sprintf(", netcleat gc the %d whose containers are provably gone", dead)
	}
	return fmt.Errorf("network %s: has attachments: %s: %s", n.Name, strings.Join(names, ", "), mend)
}
