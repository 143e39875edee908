// Package doctor looks for what is wrong with a host's container networks. It
// changes nothing.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
	"github.com/netcleat/netcleat/cmd/netcleat/explain"
	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/reconcile"
	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Finding is one thing that was looked at.
type Finding struct {
	Level finding.Level               `json:"level"`
	What  string                      `json:"what"`
	Mend  finding.Mend                `json:"mend,omitzero"`
	fix   func(context.Context) error // mends what is proven, and looks again before it does; nil where that is another command's part
}

// Options say where to look.
type Options struct {
	show.Places
	Path   string    // CNI_PATH
	Binary string    // the plugin binary of this suite; "" for the installed plugins
	Tell   io.Writer // how far it is, where that is a terminal
	Deep   bool      // also run each plugin's own CHECK
}

// exam is what one look has gathered.
type exam struct {
	Options
	networks []show.Network
	rows     []show.Row
	all      []attached.Attachment
	links    []*nl.Link                  // the host's
	holders  map[string]bool             // containers that have leases
	leased   map[string]bool             // networks that have some
	looked   map[string]bool             // networks that nothing but rules speak of
	marked   []ruleset.Mark              // all of the host's
	needs    map[string]evidence.Verdict // of networks that nothing but rules speak of
	missing  map[string][]string         // plugins whose rules attachments lack
	said     map[subject]bool
	found    []Finding
	firewall *ruleset.Ruleset // nil: not read yet
}

// ruleset returns the host's rules.
func (e *exam) ruleset(ctx context.Context) (_ *ruleset.Ruleset, err error) {
	if e.firewall == nil {
		e.firewall, err = ruleset.Read(ctx)
	}
	return e.firewall, err
}

// newExam returns one that has gathered nothing.
func newExam(o Options) *exam {
	return &exam{Options: o, holders: map[string]bool{}, leased: map[string]bool{}, looked: map[string]bool{}, said: map[subject]bool{}}
}

// subject is what a finding is about where explain looks at it, too: of an attachment, or of
// the host where that has no name.
type subject struct {
	what explain.Subject
	of   journal.Key
}

// about is what a finding about an attachment is about.
func about(what explain.Subject, r show.Row) subject {
	return subject{what, journal.Key{Network: r.Network, ContainerID: r.Container, IfName: r.Interface}}
}

// nothing is to be done about a finding.
var nothing = finding.Mend{}

func (e *exam) add(l finding.Level, mend finding.Mend, format string, args ...any) {
	e.found = append(e.found, Finding{Level: l, What: fmt.Sprintf(format, args...), Mend: mend})
}

// unsure is what to do about what may belong to a container of which nothing is
// known: nothing that removes it before the user has found out.
func unsure(network, container string) finding.Mend {
	words := "it is not known whether container " + container + " still exists: ask its runtime (crictl pods, crictl ps -a, nerdctl ps -a, podman ps -a)"
	if network != "" {
		words += "; once it is deleted there, remove what is left with: netcleat forget " + finding.Quote(network) + " " + finding.Quote(container)
	}
	return finding.Do(words)
}

// otherEnd is how to find out what uses a link of which nothing is known.
func otherEnd(link string) finding.Mend {
	return finding.Do("it is not known who uses it: ip -d link show dev " + finding.Quote(link) + " names the namespace of its other end, lsns -t net the processes in it; what made it removes it")
}

// fixable adds a proven leak, which fix removes.
func (e *exam) fixable(fix func(context.Context) error, format string, args ...any) {
	e.add(finding.Problem, finding.Run("netcleat doctor --fix"), format, args...)
	e.found[len(e.found)-1].fix = fix
}

// Examine looks at everything, and returns what it has found.
func Examine(ctx context.Context, o Options) []Finding {
	e := newExam(o)
	var err error
	if e.networks, err = show.Networks(ctx, o.Places); err != nil {
		e.broken(err)
	}
	for _, n := range e.networks {
		e.rows = append(e.rows, n.Containers...)
	}
	if e.all, err = attached.All(o.Journal); err != nil {
		e.broken(err)
	}
	e.kernel()
	e.host()
	e.configuration()
	e.lint(ctx)
	e.attachments()
	e.rules(ctx)
	e.leases(ctx)
	e.cluster(ctx)
	e.overlays(ctx)
	e.ports()
	e.shapers()
	e.marks(ctx)
	e.chains(ctx)
	e.names(ctx)
	e.explained(ctx)
	e.ranges()
	e.hairpins()
	e.backups()
	return e.found
}

// broken tells what could not be read, each thing once.
func (e *exam) broken(err error) {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		for _, err := range many.Unwrap() {
			e.broken(err)
		}
		return
	}
	if !slices.ContainsFunc(e.found, func(f Finding) bool { return f.What == err.Error() }) {
		e.add(finding.Problem, finding.Do("correct or remove it"), "%v", err)
	}
}

// attachments looks for those whose sandbox is gone, and whose links are not as
// they must be.
func (e *exam) attachments() {
	healthy := 0
	for _, r := range e.rows {
		who := r.Network + " " + r.Called() + " " + r.Interface
		switch {
		case r.Health == show.Healthy:
			healthy++
		case r.Health == show.Dead:
			e.add(finding.Problem, finding.Run("netcleat gc"), "%s: the sandbox is gone, and there is a record (%v)", who, r.Plugins)
		case r.Health == show.Unseen && r.Recorded:
			e.add(finding.Warning, unsure(r.Network, r.Container), "%s: no namespace at %s, but nothing proves that it no longer exists", who, r.Netns)
		case r.Health == show.Unseen:
			e.add(finding.Note, unsure(r.Network, r.Container), "%s: libcni remembers it, but there is no namespace at %s; containers that have stopped can be so", who, r.Netns)
		case r.Health == show.Leaving:
			e.add(finding.Problem, finding.Do("let its runtime detach it"), "%s: its DEL has begun and not ended", who)
		}
	}
	e.add(finding.Fine, nothing, "attachments in order: %d of %d", healthy, len(e.rows))
}

// rules looks for attachments that lack some.
func (e *exam) rules(ctx context.Context) {
	var live []attached.Attachment
	for _, a := range e.all {
		if slices.ContainsFunc(e.rows, func(r show.Row) bool {
			return r.Network == a.Network && r.Container == a.ContainerID && r.Interface == a.IfName && r.Health != show.Dead
		}) {
			live = append(live, a)
		}
	}
	var err error
	if e.missing, err = (reconcile.Options{Journal: e.Journal, Tell: e.Tell}).Missing(ctx, live); err != nil {
		e.broken(err)
	}
	for _, a := range live {
		if plugins := e.missing[a.String()]; len(plugins) > 0 {
			e.add(finding.Problem, finding.Run("netcleat reconcile"), "%s: rules of %v are missing", a, plugins)
		}
	}
	if len(e.missing) == 0 {
		e.add(finding.Fine, nothing, "rules of %d attachments in place", len(live))
	}
}

// Fix mends those of the findings that are proven leaks, and says so; with
// dryRun it says what it would do.
func Fix(ctx context.Context, w io.Writer, found []Finding, dryRun bool) error {
	var errs []error
	for _, f := range found {
		switch {
		case dryRun && f.fix != nil:
			fmt.Fprintf(w, "would mend: %s\n", f.What)
		case dryRun && f.Mend == finding.Run("netcleat reconcile"):
			fmt.Fprintf(w, "would restore: %s\n", f.What)
		case dryRun || f.fix == nil:
		default:
			if err := f.fix(ctx); err != nil {
				fmt.Fprintf(w, "left: %s: %v\n", f.What, err)
				errs = append(errs, fmt.Errorf("%s: %w", f.What, err))
				continue
			}
			fmt.Fprintf(w, "mended: %s\n", f.What)
		}
	}
	return errors.Join(errs...)
}

// Problems is how many of the findings are.
func Problems(found []Finding) (n int) {
	for _, f := range found {
		if f.Level == finding.Problem {
			n++
		}
	}
	return n
}

// Print prints findings and returns the number of problems.
func Print(w io.Writer, found []Finding) (problems int) {
	for _, l := range []finding.Level{finding.Fine, finding.Note, finding.Warning, finding.Problem} {
		for _, f := range found {
			if f.Level != l {
				continue
			}
			fmt.Fprintf(w, "%s%*s %s\n", term.Level(w, string(f.Level)), 8-len(f.Level), "", f.What)
			if f.Mend != nothing {
				fmt.Fprintf(w, "%-8s   -> %s\n", "", f.Mend)
			}
		}
	}
	return Problems(found)
}
