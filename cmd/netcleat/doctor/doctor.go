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
	"github.com/netcleat/netcleat/cmd/netcleat/reconcile"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
)

// Level says how bad a finding is.
type Level string

// The levels. Only a Problem is something that does not work, or a leak that is
// proven.
const (
	Fine    Level = "ok"
	Note    Level = "note"
	Warning Level = "warning"
	Problem Level = "problem"
)

// Finding is one thing that was looked at.
type Finding struct {
	Level Level
	What  string
	Mend  string // the command that mends it, or what to do
}

// Options say where to look.
type Options struct {
	show.Places
	Path string    // CNI_PATH
	Tell io.Writer // how far it is, where that is a terminal
}

// exam is what one look has gathered.
type exam struct {
	Options
	networks []show.Network
	rows     []show.Row
	all      []attached.Attachment
	found    []Finding
}

func (e *exam) add(l Level, mend, format string, args ...any) {
	e.found = append(e.found, Finding{l, fmt.Sprintf(format, args...), mend})
}

// Examine looks at everything, and returns what it has found.
func Examine(ctx context.Context, o Options) []Finding {
	e := &exam{Options: o}
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
	e.attachments()
	e.rules(ctx)
	e.leases(ctx)
	e.links()
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
	f := Finding{Problem, err.Error(), "correct or remove it"}
	if !slices.Contains(e.found, f) {
		e.found = append(e.found, f)
	}
}

// attachments looks for those whose sandbox is gone, and whose links are not as
// they must be.
func (e *exam) attachments() {
	healthy := 0
	for _, r := range e.rows {
		who := r.Network + " " + r.Container + " " + r.Interface
		switch {
		case r.Health == show.Healthy:
			healthy++
		case r.Health == show.Dead:
			e.add(Problem, "netcleat gc", "%s: the sandbox is gone, and there is a record (%v)", who, r.Plugins)
		case r.Health == show.Unseen && r.Recorded:
			e.add(Warning, "detach it with its runtime", "%s: no namespace at %s, but nothing proves that it is gone", who, r.Netns)
		case r.Health == show.Unseen:
			e.add(Warning, "detach it with its runtime, or remove "+r.CacheFile, "%s: libcni remembers it, but there is no namespace at %s", who, r.Netns)
		default:
			e.add(Problem, "restart the container", "%s: %s", who, r.Health)
		}
	}
	e.add(Fine, "", "attachments in order: %d of %d", healthy, len(e.rows))
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
	missing, err := reconcile.Options{Journal: e.Journal, Tell: e.Tell}.Missing(ctx, live)
	if err != nil {
		e.broken(err)
	}
	for _, a := range live {
		if plugins := missing[a.String()]; len(plugins) > 0 {
			e.add(Problem, "netcleat reconcile", "%s: firewall rules of %v are missing", a, plugins)
		}
	}
	if len(missing) == 0 {
		e.add(Fine, "", "firewall rules of %d attachments in place", len(live))
	}
}

// Print prints findings and returns the number of problems.
func Print(w io.Writer, found []Finding) (problems int) {
	for _, l := range []Level{Fine, Note, Warning, Problem} {
		for _, f := range found {
			if f.Level != l {
				continue
			}
			fmt.Fprintf(w, "%s%*s %s\n", term.Level(w, string(f.Level)), 8-len(f.Level), "", f.What)
			if f.Mend != "" {
				fmt.Fprintf(w, "%-8s   -> %s\n", "", f.Mend)
			}
			if l == Problem {
				problems++
			}
		}
	}
	return problems
}
