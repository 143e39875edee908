// Command bench measures CNI plugins side by side: ours, the reference's, any others, and floors, which do the same work
// with nothing around it. See README.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/netcleat/netcleat/test/bench/bed"
	"github.com/netcleat/netcleat/test/bench/cases"
	"github.com/netcleat/netcleat/test/bench/report"
)

// options are the flags.
type options struct {
	pattern  string
	out      string
	compare  string
	list     bool
	rounds   int
	budget   time.Duration
	attached int
	fill     time.Duration
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == bed.Argument {
		end(bed.Serve())
	}
	var o options
	flag.StringVar(&o.pattern, "bench", ".", "measure the cases whose name matches this regular expression")
	flag.StringVar(&o.out, "out", "build/bench/results", "directory for bench.md, bench.json and bench.svg")
	flag.StringVar(&o.compare, "compare", "", "an older bench.json to compare ratios with")
	flag.BoolVar(&o.list, "list", false, "list the cases and end")
	flag.IntVar(&o.rounds, "rounds", 30, "calls of each verb by each contender")
	flag.DurationVar(&o.budget, "budget", 6*time.Second, "time for the rounds of one case; there are always five")
	flag.IntVar(&o.attached, "attached", 1000, "containers that are there in the cases named attached")
	flag.DurationVar(&o.fill, "fill", 12*time.Second, "time for each contender to attach them")
	flag.Parse()
	end(run(o))
}

// end ends the process.
func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run measures the chosen cases and writes the report.
func run(o options) error {
	pattern, err := regexp.Compile(o.pattern)
	if err != nil {
		return err
	}
	var chosen []cases.Case
	for _, c := range cases.Table {
		if pattern.MatchString(c.Name) {
			chosen = append(chosen, c)
		}
	}
	if o.list {
		for _, c := range chosen {
			fmt.Println(c.Name, c.Verbs)
		}
		return nil
	}
	if len(chosen) == 0 {
		return fmt.Errorf("pattern %q: no such case", o.pattern)
	}
	if os.Getuid() != 0 {
		return errors.New("user: must be root, for network and mount namespaces")
	}
	return measure(o, chosen)
}

// measure measures cases and writes what came out.
func measure(o options, chosen []cases.Case) error {
	var old *report.Report
	if o.compare != "" {
		var err error
		if old, err = report.Read(o.compare); err != nil {
			return err
		}
	}
	r := &report.Report{Date: time.Now().UTC().Format("2006-01-02 15:04 MST"), Machine: thisMachine()}
	f, err := assemble(r)
	if err != nil {
		return err
	}
	s := session{options: o, field: f, report: r, rng: rand.New(rand.NewPCG(1, 2))}
	for _, c := range chosen {
		if err := s.measure(c); err != nil {
			return fmt.Errorf("case %s: %w", c.Name, err)
		}
	}
	if err := r.Write(o.out); err != nil {
		return err
	}
	fmt.Print(r.Markdown())
	if old != nil {
		fmt.Print("\n", report.Compare(old, r))
	}
	fmt.Fprintln(os.Stderr, "bench: wrote", filepath.Join(o.out, "bench.{md,json,svg}"))
	return nil
}
