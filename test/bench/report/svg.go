package report

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// Measures of the chart, in pixels.
const (
	chartWidth = 860
	labelWidth = 210
	barHeight  = 11
	barGap     = 2
	groupGap   = 12
	top        = 64
	valueRoom  = 56 // beside the longest bar, for its figure
)

// chartStyle has one set of colours for light backgrounds and one for dark ones.
const chartStyle = `<style>
text{font:11px system-ui,sans-serif;fill:#24292f} .case{font-weight:600} .muted,.tick{fill:#57606a} .grid{stroke:#d0d7de}
.ours{fill:#1a7f37} .reference{fill:#cf222e} .iptables{fill:#bc4c00} .nftables{fill:#8250df} .peer{fill:#0969da} .floor{fill:#8c959f}
@media(prefers-color-scheme:dark){text{fill:#e6edf3} .muted,.tick{fill:#9198a1} .grid{stroke:#3d444d}
.ours{fill:#3fb950} .reference{fill:#f85149} .iptables{fill:#db8b3c} .nftables{fill:#ab7df8} .peer{fill:#58a6ff} .floor{fill:#656c76}}
</style>
`

// group is the bars of one case and verb.
type group struct {
	label string
	bars  []Series
}

// SVG renders the medians of ADD and DEL as bars on a logarithmic scale.
func (r *Report) SVG() string {
	groups := r.groups()
	low, high := bounds(groups)
	height := top + 24
	for _, g := range groups {
		height += len(g.bars)*(barHeight+barGap) + groupGap
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" role="img" `+
		`aria-label="Median times of ADD and DEL">`+"\n", chartWidth, height)
	b.WriteString(chartStyle)
	fmt.Fprintf(&b, `<text x="8" y="20" class="case">Median time of one call, milliseconds, logarithmic: shorter is better</text>`+"\n")
	legend(&b)
	for v := low; v <= high*1.001; v *= 10 {
		x := labelWidth + position(v, low, high)
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1[1]f" y1="%d" y2="%d"/>`+"\n", x, top-6, height-20)
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%d" text-anchor="middle">%g</text>`+"\n", x, height-6, v)
	}
	y := top
	for _, g := range groups {
		y = g.draw(&b, y, low, high)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// groups returns what the chart shows: single calls of ADD and DEL.
func (r *Report) groups() []group {
	var groups []group
	for _, s := range r.Series {
		if s.Level > 0 || len(s.WallMS) == 0 || !slices.Contains([]string{"ADD", "DEL"}, s.Verb) {
			continue
		}
		label := s.Case + " " + s.Verb
		if n := len(groups); n == 0 || groups[n-1].label != label {
			groups = append(groups, group{label: label})
		}
		last := &groups[len(groups)-1]
		last.bars = append(last.bars, s)
	}
	return groups
}

// bounds returns the powers of ten around all medians.
func bounds(groups []group) (float64, float64) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, g := range groups {
		for _, s := range g.bars {
			low, high = min(low, Median(s.WallMS)), max(high, Median(s.WallMS))
		}
	}
	if low > high {
		return 1, 10
	}
	return math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
}

// position returns where v stands on the scale.
func position(v, low, high float64) float64 {
	return math.Log10(v/low) / math.Log10(high/low) * (chartWidth - labelWidth - valueRoom)
}

// draw draws one group at y and returns where the next begins.
func (g group) draw(b *strings.Builder, y int, low, high float64) int {
	fmt.Fprintf(b, `<text class="case" x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-8, y+barHeight-2,
		html.EscapeString(g.label))
	for _, s := range g.bars {
		median := Median(s.WallMS)
		width := max(position(median, low, high), 1)
		fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"><title>%s: %s ms</title></rect>`+"\n",
			color(s.Contender), labelWidth, y, width, barHeight, html.EscapeString(s.Contender), digits(median))
		fmt.Fprintf(b, `<text class="muted" x="%.1f" y="%d">%s</text>`+"\n", labelWidth+width+4, y+barHeight-2, digits(median))
		y += barHeight + barGap
	}
	return y + groupGap
}

// color returns the class of a contender.
func color(contender string) string {
	switch {
	case contender == Ours:
		return "ours"
	case slices.Contains([]string{FloorGo, FloorC, StartGo, StartC}, contender):
		return "floor"
	case strings.HasSuffix(contender, " iptables"):
		return "iptables"
	case strings.HasSuffix(contender, " nftables"):
		return "nftables"
	case contender == Upstream:
		return "reference"
	default:
		return "peer"
	}
}

// legend names the colours.
func legend(b *strings.Builder) {
	x := 8
	for _, l := range []struct{ class, text string }{
		{"ours", "ours"},
		{"reference", "reference, its default"},
		{"iptables", "reference, iptables"},
		{"nftables", "reference, nftables"},
		{"peer", "peers"},
		{"floor", "floors: Go, then C"},
	} {
		fmt.Fprintf(b, `<rect class="%s" x="%d" y="32" width="11" height="11" rx="2"/>`, l.class, x)
		fmt.Fprintf(b, `<text x="%d" y="42">%s</text>`+"\n", x+16, l.text)
		x += 32 + 6*len(l.text)
	}
}
