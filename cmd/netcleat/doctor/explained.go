package doctor

import (
	"context"
	"fmt"
	"slices"

	"github.com/netcleat/netcleat/cmd/netcleat/explain"
	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
)

// explained adds what explain finds of each attachment: the root cause, and warnings. What
// several attachments share, such as a chain that drops, is told once.
func (e *exam) explained(ctx context.Context) {
	alive := slices.DeleteFunc(slices.Clone(e.rows), func(r show.Row) bool {
		return r.Health == show.Dead || r.Health == show.Unseen || r.Health == show.Leaving
	})
	reports, err := explain.All(ctx, explain.Options{Places: e.Places, Path: e.Path, Binary: e.Binary, Shallow: !e.Deep, Missing: e.missing}, alive)
	if err != nil {
		e.broken(err)
	}
	var lines []shared
	for _, r := range reports {
		for i := range r.Lines {
			l := &r.Lines[i]
			if (l == r.First || l.Level == finding.Warning) && !e.told(r.Attachment, *l) {
				lines = together(lines, *l, r.Attachment)
			}
		}
		e.unexplained(r)
	}
	for _, s := range lines {
		who := s.rows[0].Network + " " + s.rows[0].Called() + " " + s.rows[0].Interface
		if len(s.rows) > 1 {
			who += " and " + term.Count(len(s.rows)-1, "other attachment")
		}
		e.add(s.line.Level, *s.line.Mend, "%s: %s", who, s.line)
	}
}

// shared is a line with the attachments that it is about.
type shared struct {
	line explain.Line
	rows []show.Row
}

// together adds a line to those that say the same.
func together(lines []shared, l explain.Line, r show.Row) []shared {
	for i, s := range lines {
		if s.line.String() == l.String() && *s.line.Mend == *l.Mend {
			lines[i].rows = append(s.rows, r)
			return lines
		}
	}
	return append(lines, shared{l, []show.Row{r}})
}

// told reports whether another finding says it already: of the host's forwarding, of
// rules that reconcile restores, and of leases.
func (e *exam) told(r show.Row, l explain.Line) bool {
	switch {
	case l.Mend == nil:
		return true
	case *l.Mend == explain.Restore:
		return len(e.missing[r.Attachment().String()]) > 0
	}
	return e.said[subject{what: l.About}] || e.said[about(l.About, r)]
}

// unexplained tells of what is seen to be wrong with an attachment where explain has found
// nothing.
func (e *exam) unexplained(r explain.Report) {
	a := r.Attachment
	warned := slices.ContainsFunc(r.Lines, func(l explain.Line) bool { return l.Level == finding.Warning })
	if a.Health == show.Healthy || r.First != nil || warned {
		return
	}
	e.add(finding.Problem, finding.Mend{Command: "netcleat explain " + finding.Quote(a.Container), When: "says what mends it"}, "%s %s %s: %s", a.Network, a.Called(), a.Interface, a.Health)
}

// ranges looks for those that have no address left, or few.
func (e *exam) ranges() {
	for _, n := range e.networks {
		for _, p := range n.IPAM.Pools {
			const percent, nearly = 100, 90
			switch {
			case p.Size == 0 || p.Held*percent < p.Size*nearly:
			case p.Held >= p.Size:
				e.add(finding.Warning, finding.Do("add a range to the network's configuration, or remove containers; netcleat gc removes leases of containers that no longer exist"),
					"network %s: range %s is full (%s): no container can be added", n.Name, p.Ranges, p.Use)
			default:
				e.add(finding.Warning, finding.Do("add a range to the network's configuration, or remove containers"), "network %s: range %s will soon be full (%s)", n.Name, p.Ranges, p.Use)
			}
		}
	}
}

// hairpins remarks on bridges that send nothing back where it came from: a container does
// not reach itself by its own published port.
func (e *exam) hairpins() {
	for _, n := range e.networks {
		if n.Driver != "bridge" || n.Hairpin || !slices.ContainsFunc(n.Containers, func(r show.Row) bool { return len(r.Ports) > 0 }) {
			continue
		}
		e.add(finding.Note, finding.Do(fmt.Sprintf("set \"hairpinMode\": true in %s, and start the containers again", n.File)),
			"network %s: without hairpinMode a container does not reach itself by the port that it publishes", n.Name)
	}
}
