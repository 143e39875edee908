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

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/look"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Options say where to look.
type Options struct {
	show.Places
	Path   string // CNI_PATH
	Binary string // the plugin binary of this suite; "" for the installed plugins
	// Shallow leaves out what costs a process for each plugin, its own CHECK, and compares the
	// rules that the records speak of with what is read once for all attachments.
	Shallow bool
	// Missing are the plugins whose rules each attachment lacks, by its name, where the caller
	// knows; nil has it looked at.
	Missing map[string][]string
}

// Line is one thing that a plugin was to do.
type Line struct {
	Level  finding.Level `json:"level"`
	Plugin string        `json:"plugin"`
	Want   string        `json:"want"` // what was to be
	Have   string        `json:"have"` // what the kernel has now
	Mend   *finding.Mend `json:"mend,omitempty"`
	About  Subject       `json:"-"`

	symptom bool // something else may be the cause of it
}

// Subject is what a line is about, where others than this package look at it, too.
type Subject string

// Forwarding is about the host's forwarding of a family, "IPv4" or "IPv6".
func Forwarding(family string) Subject { return Subject("forwarding of " + family) }

// LeaseOf is about the lease of an address.
func LeaseOf(address string) Subject { return Subject("a lease of " + address) }

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
	reports, xerr := explainSome(ctx, o, rows, mine)
	return reports, errors.Join(err, xerr)
}

// All explains the attachments of rows, which are all of the host's. What could not be
// looked at is joined to the error.
func All(ctx context.Context, o Options, rows []show.Row) ([]Report, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	return explainSome(ctx, o, rows, rows)
}

// explainSome explains some of the rows, which are all of the host's.
func explainSome(ctx context.Context, o Options, rows, some []show.Row) ([]Report, error) {
	h, err := newHost(ctx, rows)
	if h == nil {
		return nil, err
	}
	if o.Shallow {
		ctx = look.Share(ctx)
	}
	reports, xerr := h.explain(ctx, o, some)
	return reports, errors.Join(err, xerr)
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

// exam is the look at one attachment.
type exam struct {
	Options
	plan
	*worker
	row       show.Row
	container []show.Row // of the container
	pair      *nl.Pair   // of which the host's half is not opened
	sandbox   *nl.Link   // the interface
	addrs     []nl.Addr  // of it
	table     []nl.Route // of all the sandbox's tables
	end       *nl.Link   // its end on the host, or what it is made from
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

// about says what the last line is about.
func (x *exam) about(s Subject) { x.lines[len(x.lines)-1].About = s }

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
	if err := x.read(); err != nil {
		return err
	}
	x.sharedMAC()
	errs := []error{x.addresses(), x.routes(), x.policy(), x.insideNeighbours(), x.insideFilter()}
	errs = append(errs, x.outside()...)
	errs = append(errs, x.lease())
	missing, err := x.missingRules(ctx)
	errs = append(errs, err)
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

// open opens the sandbox.
func (x *exam) open() error {
	ns, err := netns.Open(x.row.Netns)
	if err != nil {
		return fmt.Errorf("sandbox %s: %w", x.row.Netns, err)
	}
	x.pair = &nl.Pair{}
	if err := x.pair.Enter(ns); err != nil {
		return errors.Join(err, x.pair.Close())
	}
	return nil
}

// read reads what several of the looks at the sandbox need.
func (x *exam) read() (err error) {
	if x.addrs, err = x.pair.Sandbox.Addrs(x.sandbox.Index); err != nil {
		return err
	}
	x.table, err = x.pair.Sandbox.Routes(0)
	return err
}

// inside is a command that runs in the sandbox.
func (x *exam) inside(command string) string {
	return "nsenter --net=" + finding.Quote(x.row.Netns) + " " + command
}
