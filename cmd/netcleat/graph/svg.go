package graph

import (
	"fmt"
	"html"
	"strings"
	"unicode/utf8"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

// Sizes of the picture, in pixels. The letters are of one width.
const (
	letter = 7.3
	line   = 17
	margin = 12
	gap    = 14
	wire   = 330 // between a network's box and its containers'
)

// svg draws for a browser: networks on the left, their containers on the right.
func svg(nodes []node) string {
	var b strings.Builder
	left, right := 0.0, 0.0
	for _, n := range nodes {
		left = max(left, width(n.title()), width(n.hub))
		for _, r := range n.Containers {
			right = max(right, width(strings.Split(box([]show.Row{r}, "\n"), "\n")...))
		}
		for _, r := range n.remotes {
			right = max(right, width(r.lines()...))
		}
	}
	y := float64(margin)
	for _, n := range nodes {
		y = svgNetwork(&b, n, pen{y: y, left: left, right: right})
	}
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" font-family="monospace" font-size="12">`, left+right+wire+2*margin, y)
	return head + "\n" + `<rect width="100%" height="100%" fill="white"/>` + "\n" + b.String() + "</svg>\n"
}

// pen is where the next network begins, and how wide the columns are.
type pen struct{ y, left, right float64 }

// svgNetwork draws one network and returns where the next begins.
func svgNetwork(b *strings.Builder, n node, p pen) float64 {
	title := []string{n.title()}
	if n.hub != "" {
		title = append(title, n.hub)
	}
	height := svgBox(b, margin, p.y, p.left, title, "#eef")
	from, y := p.y+height/2, p.y
	for _, r := range n.Containers {
		fill := "#efe"
		if r.Health != show.Healthy {
			fill = "#fdd"
		}
		host, sandbox := ends(r)
		y = svgEnd(b, end{pen{y, p.left, p.right}, from, host + " ═ " + sandbox}, strings.Split(box([]show.Row{r}, "\n"), "\n"), fill)
	}
	for _, r := range n.remotes {
		fill := "#ffe"
		if r.Forwarded == 0 {
			fill = "#fdd"
		}
		y = svgEnd(b, end{pen{y, p.left, p.right}, from, r.Uplink}, r.lines(), fill)
	}
	return max(y, p.y+height+gap) + gap
}

// end is where the line to a box on the right begins, and what it says.
type end struct {
	pen
	from float64
	wire string
}

// svgEnd draws a box on the right with its line, and returns where the next begins.
func svgEnd(b *strings.Builder, e end, lines []string, fill string) float64 {
	x := margin + e.left + wire
	h := svgBox(b, x, e.y, e.right, lines, fill)
	at := e.y + h/2
	fmt.Fprintf(b, `<path d="M%.0f %.0f L%.0f %.0f L%.0f %.0f" fill="none" stroke="#667"/>`+"\n", margin+e.left, e.from, margin+e.left+24, at, x, at)
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" text-anchor="middle">%s</text>`+"\n", x-(wire-24)/2, at-4, html.EscapeString(e.wire))
	return e.y + h + gap
}

// svgBox draws a box with lines of text and returns its height.
func svgBox(b *strings.Builder, x, y, w float64, lines []string, fill string) float64 { //nolint:revive // a place, a size, and what is in it
	h := float64(len(lines)*line + 8)
	fmt.Fprintf(b, `<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" rx="4" fill="%s" stroke="#667"/>`+"\n", x, y, w, h, fill)
	for i, l := range lines {
		fmt.Fprintf(b, `<text x="%.0f" y="%.0f">%s</text>`+"\n", x+8, y+float64(i*line)+line, html.EscapeString(l))
	}
	return h
}

func width(lines ...string) (w float64) {
	for _, l := range lines {
		w = max(w, float64(utf8.RuneCountInString(l))*letter+16)
	}
	return w
}
