package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/netcleat/netcleat/test/bench/bed"
	"github.com/netcleat/netcleat/test/bench/cases"
	"github.com/netcleat/netcleat/test/bench/report"
)

// session is one run of the benchmark.
type session struct {
	options options
	field   *field
	report  *report.Report
	rng     *rand.Rand // of the order in which contenders take turns
}

// runner is an entry with its bed, and what it has done so far.
type runner struct {
	entry
	bed    *bed.Client
	state  string
	failed bool
	series map[string]*report.Series // by verb, and by level in bursts
}

// measure measures one case.
func (s *session) measure(c cases.Case) (err error) {
	begin := time.Now()
	fmt.Fprintf(os.Stderr, "bench: %s", c.Name)
	runners, err := s.open(c)
	defer func() { err = errors.Join(err, closeAll(runners)) }()
	if err != nil {
		return err
	}
	for _, r := range runners {
		if err := s.try(c, r); err != nil {
			s.fail(c, r, err)
		}
	}
	switch {
	case c.Connect:
		s.connections(c, runners)
	case len(c.Levels) > 0:
		s.bursts(c, runners)
	default:
		s.rounds(c, runners)
	}
	s.collect(c, runners)
	fmt.Fprintf(os.Stderr, " %.1fs\n", time.Since(begin).Seconds())
	return nil
}

// open opens a bed for each entry and attaches the containers that are to be there. It returns what it has opened, with
// an error too.
func (s *session) open(c cases.Case) ([]*runner, error) {
	var runners []*runner
	for _, e := range s.field.entries(c, s.options.attached) {
		setup, err := c.Setup(e.backend)
		if err != nil {
			return runners, err
		}
		setup.Dir, setup.Floor = e.dir, e.floor
		if setup.State, err = os.MkdirTemp(buildDir, "state"); err != nil {
			return runners, err
		}
		if setup.State, err = filepath.Abs(setup.State); err != nil {
			return runners, err
		}
		r := &runner{entry: e, state: setup.State, series: map[string]*report.Series{}}
		runners = append(runners, r)
		if r.bed, err = bed.Start(setup); err != nil {
			return runners, err
		}
		if err := s.attach(c, r); err != nil {
			s.fail(c, r, err)
		}
	}
	if c.Attached || c.Connect {
		quiet(10 * time.Second) // multicast and duplicate address detection of that many links go on for a while
	}
	return runners, nil
}

// attach makes the sandboxes and fills the bed.
func (s *session) attach(c cases.Case, r *runner) error {
	slots := 1
	for _, level := range c.Levels {
		slots = max(slots, burstSize(level))
	}
	if err := r.bed.Prepare(slots); err != nil {
		return err
	}
	if r.others == 0 {
		return nil
	}
	n, err := r.bed.Fill(bed.Range{First: 1, Count: r.others, Within: s.options.fill})
	if err == nil && n < r.others {
		s.note(c, r, fmt.Sprintf("%d others attached instead of %d: attaching took longer than %s", n, r.others, s.options.fill))
	}
	r.others = n
	return err
}

// closeAll closes the beds, and waits until the kernel has cleared away what was in them.
func closeAll(runners []*runner) error {
	var errs []error
	for _, r := range runners {
		if r.bed != nil {
			errs = append(errs, r.bed.Close())
		}
		errs = append(errs, os.RemoveAll(r.state))
	}
	quiet(5 * time.Second)
	return errors.Join(errs...)
}

// note writes down what a reader of the figures must know.
func (s *session) note(c cases.Case, r *runner, text string) {
	s.report.Notes = append(s.report.Notes, fmt.Sprintf("%s, %s: %s", c.Name, r.name, text))
}

// fail takes a contender out of a case.
func (s *session) fail(c cases.Case, r *runner, err error) {
	if !r.failed {
		s.note(c, r, "left out: "+err.Error())
		fmt.Fprintf(os.Stderr, " [%s: %v]", r.name, err)
	}
	r.failed = true
}

// takesPart says whether the contender has this verb: a floor does not check.
func (r *runner) takesPart(c cases.Case, verb string) bool {
	return !r.failed && (verb != "CHECK" || r.floor == "" || c.Kind == "")
}

// try takes a contender once through the case: it must do what it says, and leave nothing. What it does is counted in a
// second pass, under ptrace.
func (s *session) try(c cases.Case, r *runner) error {
	if r.failed {
		return nil
	}
	verbs := c.Verbs
	if c.Connect {
		verbs = []string{"ADD"}
	}
	for _, verb := range verbs {
		if !r.takesPart(c, verb) {
			continue
		}
		if _, err := r.bed.Call(bed.Ask{Verb: verb}); err != nil {
			return err
		}
		if err := s.proof(c, r, verb); err != nil {
			return err
		}
	}
	if c.Connect || len(c.Levels) > 0 {
		return nil
	}
	for _, verb := range verbs {
		if !r.takesPart(c, verb) {
			continue
		}
		cost, err := r.bed.Trace(bed.Ask{Verb: verb})
		if err != nil {
			return fmt.Errorf("under ptrace: %w", err)
		}
		series := r.at(c, verb, 0)
		series.Execs, series.PeakKiB = cost.Execs, cost.PeakKiB
	}
	return nil
}

// proof looks at what a verb did. Programs that only start have nothing to show.
func (s *session) proof(c cases.Case, r *runner, verb string) error {
	if r.floor != "" && c.Kind == "" {
		return nil
	}
	switch verb {
	case "ADD":
		if err := r.bed.Verify(0); err != nil {
			return fmt.Errorf("after ADD: %w", err)
		}
	case "DEL":
		leaks, err := r.bed.Leaks(0)
		if err != nil {
			return fmt.Errorf("after DEL: %w", err)
		}
		if len(leaks) > 0 {
			s.note(c, r, fmt.Sprintf("DEL leaves %q", leaks))
		}
	}
	return nil
}

// at returns the series of a verb, and level.
func (r *runner) at(c cases.Case, verb string, level int) *report.Series {
	key := fmt.Sprint(verb, level)
	if r.series[key] == nil {
		r.series[key] = &report.Series{
			Case: c.Name, Verb: verb, Contender: r.name, Level: level, Attached: r.others, Floor: r.against,
		}
	}
	return r.series[key]
}

// collect moves the series into the report, the contenders of one verb together.
func (s *session) collect(c cases.Case, runners []*runner) {
	levels := c.Levels
	if len(levels) == 0 {
		levels = []int{0}
	}
	for _, level := range levels {
		for _, verb := range c.Verbs {
			for _, r := range runners {
				if series := r.series[fmt.Sprint(verb, level)]; series != nil && !r.failed {
					s.report.Series = append(s.report.Series, *series)
				}
			}
		}
	}
}
