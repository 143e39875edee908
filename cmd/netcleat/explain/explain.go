// Package explain says for each attachment of a container what each plugin of
// its list was to do and what the kernel has now, and names the first thing that
// breaks connectivity, with the command that mends it. It changes nothing.
package explain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Options say where to look.
type Options struct {
	show.Places
	Path   string // CNI_PATH
	Binary string // the plugin binary of this suite; "" for the installed plugins
	// Shallow leaves out what costs a process for each plugin, its own CHECK, and the
	// comparison of all rules that the records speak of.
	Shallow bool
}

// Line is one thing that a plugin was to do.
type Line struct {
	Level  finding.Level `json:"level"`
	Plugin string        `json:"plugin"`
	Want   string        `json:"want"` // what was to be
	Have   string        `json:"have"` // what the kernel has now
	Mend   *finding.Mend `json:"mend,omitempty"`

	symptom bool // something else may be the cause of it
}

// String is the line in words.
func (l Line) String() string { return l.Plugin + ": " + l.Want + ": " + l.Have }

// Report is what there is to say of one attachment.
type Report struct {
	Attachment show.Row `json:"attachment"`
	Lines      []Line   `json:"lines"`
	First      *Line    `json:"first,omitempty"` // the first thing that breaks it
}

// Container explains all attachments of the container that name stands for. What
// could not be looked at is joined to the error.
func Container(ctx context.Context, o Options, name string) (reports []Report, err error) {
	rows, err := show.Rows(o.Places)
	mine, ferr := show.FindContainer(rows, name)
	if ferr != nil {
		return nil, errors.Join(ferr, err)
	}
	h, herr := newHost(ctx, rows)
	if err = errors.Join(err, herr); h == nil {
		return nil, err
	}
	reports, xerr := h.explain(ctx, o, mine)
	return reports, errors.Join(err, xerr, h.evidence.Close())
}

// All explains the attachments of rows, which are all of the host's. What could not be
// looked at is joined to the error.
func All(ctx context.Context, o Options, rows []show.Row) ([]Report, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	h, err := newHost(ctx, rows)
	if h == nil {
		return nil, err
	}
	reports, xerr := h.explain(ctx, o, rows)
	return reports, errors.Join(err, xerr, h.evidence.Close())
}

// Health completes the rows' health by the first problem of each, or else by its first
// warning: for what was not found ill before. A user who may not look sees no more.
func Health(ctx context.Context, o Options, rows []show.Row) ([]show.Row, error) {
	o.Shallow = true
	reports, err := All(ctx, o, rows)
	if errors.Is(err, fs.ErrPermission) {
		err = nil
	}
	for i, r := range reports {
		l := r.First
		if at := slices.IndexFunc(r.Lines, func(l Line) bool { return l.Level == finding.Warning }); l == nil && at >= 0 {
			l = &r.Lines[at]
		}
		if l != nil && rows[i].Health == show.Healthy {
			rows[i].Health = l.Want + ": " + l.Have
		}
	}
	return rows, err
}

// host is what is read once for all attachments.
type host struct {
	rows     []show.Row
	rules    *ruleset.Ruleset
	links    map[int]*nl.Link
	neighs   map[uint8][]nl.Neigh // by family
	evidence *evidence.Judge      // the caller closes it
}

// newHost reads it. Without the rules, of which the error tells, the rest is there.
func newHost(ctx context.Context, rows []show.Row) (h *host, err error) {
	c, err := nl.Open("", nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	all, err := c.Host.Links()
	if err != nil {
		return nil, err
	}
	h = &host{rows: rows, links: make(map[int]*nl.Link, len(all)), neighs: map[uint8][]nl.Neigh{}}
	for _, l := range all {
		h.links[l.Index] = l
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		if h.neighs[family], err = c.Host.Neighs(family); err != nil {
			return nil, err
		}
	}
	if h.evidence, err = evidence.New(); err != nil {
		return nil, err
	}
	h.rules, err = ruleset.Read(ctx)
	return h, err
}

// explain looks at some of the attachments.
func (h *host) explain(ctx context.Context, o Options, rows []show.Row) (reports []Report, err error) {
	mine := map[string][]show.Row{}
	for _, r := range rows {
		mine[r.Container] = append(mine[r.Container], r)
	}
	for _, r := range rows {
		x := &exam{Options: o, host: h, row: r, container: mine[r.Container]}
		if xerr := x.examine(ctx); xerr != nil {
			err = errors.Join(err, fmt.Errorf("%s %s %s: %w", r.Network, r.Called(), r.Interface, xerr))
		}
		reports = append(reports, x.report())
	}
	return reports, err
}

// exam is the look at one attachment.
type exam struct {
	Options
	plan
	*host
	row       show.Row
	container []show.Row // of the container
	pair      *nl.Pair
	sandbox   *nl.Link // the interface
	end       *nl.Link // its end on the host, or what it is made from
	lines     []Line
}

func (x *exam) report() Report {
	r := Report{Attachment: x.row, Lines: x.lines}
	i := slices.IndexFunc(x.lines, func(l Line) bool { return l.Level == finding.Problem && !l.symptom })
	if i < 0 {
		i = slices.IndexFunc(x.lines, func(l Line) bool { return l.Level == finding.Problem })
	}
	if i >= 0 {
		r.First = &x.lines[i]
	}
	return r
}

func (x *exam) add(l Line) { x.lines = append(x.lines, l) }

func (x *exam) fine(plugin, want, have string) {
	x.add(Line{Level: finding.Fine, Plugin: plugin, Want: want, Have: have})
}

func (x *exam) problem(plugin, want, have string, m finding.Mend) {
	x.add(Line{Level: finding.Problem, Plugin: plugin, Want: want, Have: have, Mend: &m})
}

// warn adds what may break some of the traffic, and not all of it.
func (x *exam) warn(plugin, want, have string, m finding.Mend) {
	x.add(Line{Level: finding.Warning, Plugin: plugin, Want: want, Have: have, Mend: &m})
}

// note adds a remark; m may say nothing.
func (x *exam) note(plugin, want, have string, m finding.Mend) {
	l := Line{Level: finding.Note, Plugin: plugin, Want: want, Have: have}
	if m != (finding.Mend{}) {
		l.Mend = &m
	}
	x.add(l)
}

// judge adds a problem where have is not "", and says that all is well
// otherwise.
func (x *exam) judge(plugin, want, have string, m finding.Mend) {
	if have == "" {
		x.fine(plugin, want, "OK")
		return
	}
	x.problem(plugin, want, have, m)
}

// failed reports whether a problem of the plugin has been found.
func (x *exam) failed(plugin string) bool {
	return slices.ContainsFunc(x.lines, func(l Line) bool { return l.Level == finding.Problem && l.Plugin == plugin })
}

// again is for what only a new attachment can bring back.
var again = finding.Do("only a new attachment brings it back: restart the container")

// examine looks from the inside out, as a packet goes.
func (x *exam) examine(ctx context.Context) (err error) {
	if x.plan, err = planOf(x.row); err != nil {
		return err
	}
	switch x.row.Health {
	case show.Dead:
		x.problem(x.main(), "a sandbox at "+x.row.Netns, "it is gone", finding.Run("netcleat gc"))
		return nil
	case show.Leaving:
		x.problem(x.main(), "an attachment", "its DEL has begun and not ended", finding.Do("let its runtime detach it"))
		return nil
	case show.Unseen:
		x.problem(x.main(), "a sandbox at "+x.row.Netns, "there is none, which does not prove that it is gone", finding.Do("detach it with its runtime"))
		return nil
	}
	if !x.here() {
		return nil
	}
	if err := x.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.pair.Close()) }()
	there, err := x.findInterface()
	if err != nil || !there {
		return err
	}
	x.sharedMAC()
	errs := []error{x.addresses(), x.routes(), x.policy(), x.insideNeighbours(), x.insideFilter()}
	errs = append(errs, x.outside()...)
	errs = append(errs, x.lease())
	var missing []string
	if !x.Shallow {
		missing, err = x.missingRules(ctx)
		errs = append(errs, err)
	}
	x.masquerading(missing)
	for _, c := range x.confs[1:] {
		errs = append(errs, x.chained(ctx, c, missing))
	}
	x.forwarded(missing)
	if !x.Shallow {
		errs = append(errs, x.checks(ctx))
	}
	return errors.Join(errs...)
}

// here reports whether the attachment was made from this network namespace: from
// another the host's part cannot be seen.
func (x *exam) here() bool {
	here := x.evidence.Here(x.row.Attachment().Records)
	if !here {
		x.note(x.main(), "the network namespace that it was attached from", "this is another: netcleat explain has to run there", finding.Mend{})
	}
	return here
}

// open opens both namespaces.
func (x *exam) open() (err error) {
	if x.pair, err = nl.Open(x.row.Netns, nil); err != nil {
		return err
	}
	if x.pair.Sandbox == nil {
		return errors.Join(fmt.Errorf("sandbox %s: %w", x.row.Netns, fs.ErrNotExist), x.pair.Close())
	}
	return nil
}

// hostLink returns the host's link of that name, or nil.
func (x *exam) hostLink(name string) *nl.Link {
	for _, l := range x.links {
		if l.Name == name {
			return l
		}
	}
	return nil
}

// inside is a command that runs in the sandbox.
func (x *exam) inside(command string) string {
	return "nsenter --net=" + finding.Quote(x.row.Netns) + " " + command
}
