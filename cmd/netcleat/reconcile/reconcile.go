// Package reconcile restores the rules of attachments that live, after somebody
// has flushed them: of the firewall, limits, and routing by source address. What they are is in the journal: it needs neither
// runtime nor configuration files.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
	"github.com/netcleat/netcleat/cmd/suite"
	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/look"
)

// Options say what to reconcile.
type Options struct {
	Journal journal.Dir
	Gate    gate.Gate // nil: every change is let through
	Out     io.Writer
	Tell    io.Writer // how far it is, where that is a terminal
	Verbose bool      // each change is told
}

// plugins are ours, by name.
var plugins = suite.Plugins()

// restore returns what restores the rules of a plugin, or nil.
func restore(name string) func(context.Context, gate.Gate, journal.Dir, journal.Record) error {
	if p := plugins[name]; p != nil {
		return p.About().Restore
	}
	return nil
}

// lockWait bounds how long an operation on an attachment is waited for.
const lockWait = 10 * time.Second

// Run restores the rules of all attachments of all networks. It goes on where
// one fails.
func Run(ctx context.Context, o Options) (err error) {
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
	restored, intact, skipped := 0, 0, 0
	for _, a := range all {
		progress.Step()
		if v := judge.Of(a.Records); v.State == evidence.Dead {
			fmt.Fprintf(o.Out, "%s: skipped: the sandbox no longer exists: %s (netcleat gc removes what it left)\n", a, v.Why)
			skipped++
			continue
		}
		if !judge.Here(a.Records) {
			fmt.Fprintf(o.Out, "%s: skipped: it was attached from another network namespace\n", a)
			skipped++
			continue
		}
		changed, err := o.attachment(ctx, a)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a, err))
		}
		if len(changed) > 0 {
			fmt.Fprintf(o.Out, "%s: restored the rules of %s\n", a, strings.Join(changed, ", "))
			restored++
		} else if err == nil {
			intact++
		}
	}
	fmt.Fprintf(o.Out, "%d restored, %d as they were, %d skipped\n", restored, intact, skipped)
	return errors.Join(append(errs, judge.Close())...)
}

// errMissing is what Missing's gate answers.
var errMissing = errors.New("is missing")

// Missing returns the attachments that lack rules, with the plugins that made those. It
// restores none.
func (o Options) Missing(ctx context.Context, all []attached.Attachment) (list map[string][]string, err error) {
	judge, err := evidence.New()
	if err != nil {
		return nil, err
	}
	list = map[string][]string{}
	var errs []error
	progress := term.Start(o.Tell, "attachments", len(all))
	defer progress.Done()
	for _, a := range all {
		progress.Step()
		if !judge.Here(a.Records) {
			continue
		}
		plugins, err := o.Lacks(ctx, a)
		if len(plugins) > 0 {
			list[a.String()] = plugins
		}
		errs = append(errs, err)
	}
	return list, errors.Join(append(errs, judge.Close())...)
}

// Lacks returns the plugins whose rules an attachment lacks. Where ctx shares what is read
// (package look), what is missing by that is looked at again, under the attachment's lock.
func (o Options) Lacks(ctx context.Context, a attached.Attachment) (list []string, err error) {
	o.Gate = func(string) error { return errMissing }
	var errs []error
	for _, r := range a.Records {
		if restore(r.Plugin) == nil || look.Of(ctx) != nil && restore(r.Plugin)(ctx, o.Gate, o.Journal, r) == nil {
			continue
		}
		_, err := o.record(look.Alone(ctx), r.Key)
		switch {
		case errors.Is(err, errMissing):
			list = append(list, r.Plugin)
		case err != nil && cnierr.Code(err) != cnierr.PortTaken: // else they are not to be restored
			errs = append(errs, fmt.Errorf("%s: %s: %w", a, r.Plugin, err))
		}
	}
	return list, errors.Join(errs...)
}

// attachment restores the rules of one attachment, and returns the plugins whose
// rules those were.
func (o Options) attachment(ctx context.Context, a attached.Attachment) (changed []string, err error) {
	var errs []error
	for _, r := range a.Records {
		if restore(r.Plugin) == nil {
			continue
		}
		n, err := o.record(ctx, r.Key)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Plugin, err))
		}
		if n > 0 {
			changed = append(changed, r.Plugin)
		}
	}
	return changed, errors.Join(errs...)
}

// record restores what one record speaks of, and returns the number of changes.
// Its lock keeps ADD and DEL of the attachment out meanwhile; one that is being
// attached or detached has no rules to restore.
func (o Options) record(ctx context.Context, k journal.Key) (changes int, err error) {
	soon, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	e, err := o.Journal.Open(soon, k)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if e.Found != journal.Done || o.Journal.Leaving(k) {
		return 0, nil
	}
	counted := func(what string) error {
		if err := o.Gate.Pass(what); err != nil {
			return err
		}
		if changes++; o.Verbose {
			fmt.Fprintf(o.Out, "  %s: %s\n", k.Plugin, what)
		}
		return nil
	}
	err = restore(k.Plugin)(ctx, counted, o.Journal, e.Record)
	return changes, err
}
