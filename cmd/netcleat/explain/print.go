package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
)

// Print prints reports for people.
func Print(w io.Writer, reports []Report) error {
	var b strings.Builder
	for i, r := range reports {
		if i > 0 {
			b.WriteString("\n")
		}
		a := r.Attachment
		fmt.Fprintf(&b, "%s %s %s in %s\n", a.Network, a.Called(), a.Interface, a.Netns)
		for _, l := range r.Lines {
			fmt.Fprintf(&b, "%-8s %-11s %s: %s\n", l.Level, l.Plugin, l.Want, l.Have)
			if l.Mend != nil {
				fmt.Fprintf(&b, "%-8s   -> %s\n", "", l.Mend)
			}
		}
		if r.First == nil {
			b.WriteString(summary(r) + "\n")
			continue
		}
		fmt.Fprintf(&b, "root cause: %s: %s: %s\n", r.First.Plugin, r.First.Want, r.First.Have)
		fmt.Fprintf(&b, "fix: %s\n", r.First.Mend)
	}
	_, err := io.WriteString(w, strings.Map(printable, b.String()))
	return err
}

// summary is of an attachment that works.
func summary(r Report) string {
	if slices.ContainsFunc(r.Lines, func(l Line) bool { return l.Level == finding.Warning }) {
		return "it works, but see the warnings"
	}
	return "nothing is wrong with it"
}

// printable replaces what a terminal would obey: names of links in a sandbox are
// the container's choice.
func printable(r rune) rune {
	if r != '\n' && !unicode.IsPrint(r) {
		return '?'
	}
	return r
}

// PrintJSON prints reports for programs.
func PrintJSON(w io.Writer, reports []Report) error {
	return term.JSON(w, append([]Report{}, reports...))
}

// Broken returns how many of the attachments have a problem.
func Broken(reports []Report) (n int) {
	for _, r := range reports {
		if r.First != nil {
			n++
		}
	}
	return n
}
