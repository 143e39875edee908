// Package report holds what was measured and renders it: as a Markdown table, a chart, JSON, and a comparison of two runs.
// It is pure: the same report renders to the same bytes.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Names of the contenders that others are compared with.
const (
	Ours     = "ours"
	FloorGo  = "floor (Go)"
	FloorC   = "floor (C)"
	StartGo  = "empty program (Go)"
	StartC   = "empty program (C)"
	Upstream = "reference"
)

// Report is one run.
type Report struct {
	Date     string
	Machine  Machine
	Versions []Version
	Sizes    []Size
	Series   []Series
	Notes    []string
}

// Machine is what the figures were taken on.
type Machine struct {
	CPU    string
	Cores  int
	Kernel string
	HZ     string // empty where the kernel does not tell
	Go     string
}

// Version is what a contender says that it is.
type Version struct{ Contender, Text string }

// Size is what a contender's plugins take on disk, each hard-linked file once.
type Size struct {
	Contender string
	Bytes     int64
	Files     int
}

// Series is what one contender did in one verb of one case.
type Series struct {
	Case, Verb, Contender string

	Level     int       `json:",omitempty"` // how many at a time, in a burst
	WallMS    []float64 // one a call
	CPUMS     []float64 // user and system, one a call
	PerSecond []float64 `json:",omitempty"` // one a burst, or one a row of connections
	Execs     int       // in one call
	PeakKiB   int       // of the largest process of one call
	Attached  int       `json:",omitempty"` // containers that were there before
	Failed    int       `json:",omitempty"` // calls that failed in bursts
	Floor     string    // the contender to compare with in the last column
}

// times returns what is compared: shorter is better.
func (s Series) times() []float64 {
	if len(s.PerSecond) == 0 {
		return s.WallMS
	}
	t := make([]float64, len(s.PerSecond))
	for i, v := range s.PerSecond {
		t[i] = 1000 / v
	}
	return t
}

// beside returns the series of another contender in the same verb of the same case.
func (r *Report) beside(s Series, contender string) (Series, bool) {
	for _, o := range r.Series {
		if o.Case == s.Case && o.Verb == s.Verb && o.Level == s.Level && o.Contender == contender {
			return o, len(o.times()) > 0
		}
	}
	return Series{}, false
}

// ratio returns how many times the other contender's time s took.
func (r *Report) ratio(s Series, contender string) (Ratio, bool) {
	o, ok := r.beside(s, contender)
	if !ok || contender == s.Contender || len(s.times()) == 0 {
		return Ratio{}, false
	}
	return NewRatio(s.times(), o.times()), true
}

// Read reads a report that Write wrote.
func Read(path string) (*Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Report{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("report %s: %w", path, err)
	}
	return r, nil
}

// Write writes bench.json, bench.md and bench.svg into dir.
func (r *Report) Write(dir string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	write := func(name string, content []byte) error {
		return os.WriteFile(filepath.Join(dir, name), content, 0o644)
	}
	return errors.Join(
		write("bench.json", append(b, '\n')),
		write("bench.md", []byte(r.Markdown())),
		write("bench.svg", []byte(r.SVG())))
}
