// Package collect removes what is left of attachments whose sandboxes are
// provably dead. In doubt an attachment stays, and is named.
package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/journal"
)

// Options say what to collect.
type Options struct {
	Journal journal.Dir
	Plugins Plugins
	Out     io.Writer
	Tell    io.Writer // how far it is, where that is a terminal
	DryRun  bool
}

// Run removes what is left of dead attachments of all networks. It goes on where
// that fails.
func Run(ctx context.Context, o Options) error {
	all, err := attached.All(o.Journal)
	if err != nil {
		err = fmt.Errorf("journal: %w", err)
	}
	judge, jerr := evidence.New()
	if jerr != nil {
		return errors.Join(err, jerr)
	}
	errs := []error{err}
	progress := term.Start(o.Tell, "attachments", len(all))
	defer progress.Done()
	o.Out = progress.Over(o.Out)
	removed, left, alive := 0, 0, 0
	for _, a := range all {
		progress.Step()
		v := judge.Of(a.Records)
		if v.State == evidence.Dead && !judge.Removable(a.Records) {
			v = evidence.Verdict{State: evidence.Unknown, Why: "it was attached from another network namespace: netcleat gc has to run there"}
		}
		switch v.State {
		case evidence.Alive:
			alive++
		case evidence.Unknown:
			fmt.Fprintf(o.Out, "left %s: not provably dead: %s (%s)\n", a, v.Why, evidence.Forget(a.Network, a.ContainerID))
			left++
		default:
			if err := o.reclaim(ctx, a); err != nil {
				fmt.Fprintf(o.Out, "left %s: %v\n", a, err)
				errs = append(errs, fmt.Errorf("%s: %w", a, err))
				left++
				continue
			}
			fmt.Fprintf(o.Out, "%s %s (%s): %s\n", o.verb(), a, strings.Join(plugins(a), ", "), v.Why)
			removed++
		}
	}
	errs = append(errs, o.sweep(), o.forgetOld(ctx), judge.Close())
	fmt.Fprintf(o.Out, "%d %s, %d left, %d alive\n", removed, o.verb(), left, alive)
	return errors.Join(errs...)
}

func (o Options) verb() string {
	if o.DryRun {
		return "would be removed"
	}
	return "removed"
}

func plugins(a attached.Attachment) (names []string) {
	for _, r := range a.Records {
		names = append(names, r.Plugin)
	}
	return names
}

// reclaim has the plugins of an attachment remove it, the last of the list first.
func (o Options) reclaim(ctx context.Context, a attached.Attachment) error {
	if o.DryRun {
		return nil
	}
	var errs []error
	for _, r := range slices.Backward(a.Records) {
		if err := o.del(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Plugin, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return o.forget(ctx, a)
}

// del has one plugin remove what its record speaks of, and checks that it did: a
// plugin of another suite knows no records.
func (o Options) del(ctx context.Context, r journal.Record) error {
	if err := o.Plugins.Del(ctx, r); err != nil {
		return err
	}
	left, err := o.Journal.Read(r.Key)
	if err == nil && left.Created.Equal(r.Created) {
		return errors.New("its DEL has left the record: is the plugin netcleat's?")
	}
	return nil
}

// sweep removes files of the journal that speak of no attachment.
func (o Options) sweep() error {
	networks, err := o.Journal.Networks()
	errs := []error{err}
	for _, n := range networks {
		errs = append(errs, o.Journal.Sweep(n, func(path string) bool {
			fmt.Fprintf(o.Out, "%s %s: of an operation that was killed before it began\n", o.verb(), path)
			return !o.DryRun
		}))
	}
	return errors.Join(errs...)
}
