package report

import (
	"fmt"
	"strings"
)

// Markdown renders the whole report.
func (r *Report) Markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "Measured %s on %s, %d cores, Linux %s", r.Date, m.CPU, m.Cores, m.Kernel)
	if m.HZ != "" {
		fmt.Fprintf(&b, ", HZ=%s", m.HZ)
	}
	fmt.Fprintf(&b, ", %s.\n", m.Go)
	for _, v := range r.Versions {
		fmt.Fprintf(&b, "%s: %s.\n", v.Contender, v.Text)
	}
	b.WriteString("\nTimes are milliseconds. ± is half of the interquartile range. \"× ours\" and \"× floor\" say how many times the other's\n" +
		"time this took, with the 95 % interval of a bootstrap; in bursts and for connections they compare time for all.\n\n")
	r.table(&b)
	r.sizes(&b)
	if len(r.Notes) > 0 {
		b.WriteString("\nNotes:\n")
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	return b.String()
}

// header names the columns of the table.
var header = []string{
	"case", "verb", "contender", "n", "median", "±", "p95", "p99", "a second", "CPU", "execve", "peak MB", "× ours", "× floor",
}

// table writes all series.
func (r *Report) table(b *strings.Builder) {
	row(b, header...)
	b.WriteString("|" + strings.Repeat("---|", 3) + strings.Repeat("--:|", len(header)-3) + "\n")
	var last string
	for _, s := range r.Series {
		name := s.Case
		if s.Level > 0 {
			name = fmt.Sprintf("%s ×%d", s.Case, s.Level)
		}
		if name+s.Verb == last {
			row(b, r.cells(s, "", "")...)
		} else {
			row(b, r.cells(s, name, s.Verb)...)
		}
		last = name + s.Verb
	}
}

// cells returns one row; the first two cells are given.
func (r *Report) cells(s Series, name, verb string) []string {
	n := len(s.WallMS)
	spread := Spread(s.times())
	if n == 0 {
		n = len(s.PerSecond)
	}
	contender := s.Contender
	if s.Attached > 0 {
		contender += fmt.Sprintf(" (%d attached)", s.Attached)
	}
	c := []string{
		name, verb, contender, fmt.Sprint(n), digits(Median(s.WallMS)), digits(100*spread) + " %",
		digits(Quantile(s.WallMS, 0.95)), digits(Quantile(s.WallMS, 0.99)), digits(Median(s.PerSecond)),
		digits(Median(s.CPUMS)), count(s.Execs), "–", "–", "–",
	}
	if s.PeakKiB > 0 {
		c[11] = digits(float64(s.PeakKiB) / 1024)
	}
	if ratio, ok := r.ratio(s, Ours); ok {
		c[12] = ratio.String()
	}
	if ratio, ok := r.ratio(s, s.Floor); ok {
		c[13] = ratio.String()
	}
	if s.Failed > 0 {
		c[3] += fmt.Sprintf(" (%d failed)", s.Failed)
	}
	return c
}

// count writes a count that may be missing.
func count(n int) string {
	if n == 0 {
		return "–"
	}
	return fmt.Sprint(n)
}

// row writes one row of a table.
func row(b *strings.Builder, cells ...string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// sizes writes the installed sizes.
func (r *Report) sizes(b *strings.Builder) {
	if len(r.Sizes) == 0 {
		return
	}
	b.WriteString("\n| installed | MB | plugins |\n|---|--:|--:|\n")
	for _, s := range r.Sizes {
		row(b, s.Contender, fmt.Sprintf("%.1f", float64(s.Bytes)/1e6), fmt.Sprint(s.Files))
	}
}
