package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Compare renders how the ratios of a run differ from those of an older one. Ratios of one run hold on another day and
// machine where milliseconds do not. A change is marked where the intervals of the two runs do not overlap.
func Compare(old, now *Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Ratios of %s against those of %s\n\n", now.Date, old.Date)
	row(&b, "case", "verb", "contender", "against", "was", "is", "change")
	b.WriteString("|---|---|---|---|--:|--:|--:|\n")
	for _, s := range now.Series {
		before, ok := old.beside(s, s.Contender)
		if !ok {
			continue
		}
		for _, other := range slices.Compact([]string{Ours, s.Floor}) {
			was, okWas := old.ratio(before, other)
			is, okIs := now.ratio(s, other)
			if okWas && okIs {
				name := s.Case
				if s.Level > 0 {
					name = fmt.Sprintf("%s ×%d", s.Case, s.Level)
				}
				row(&b, name, s.Verb, s.Contender, other, was.String(), is.String(), change(was, is))
			}
		}
	}
	return b.String()
}

// change writes the difference of two ratios.
func change(was, is Ratio) string {
	c := fmt.Sprintf("%+.0f %%", 100*(is.Value/was.Value-1))
	if math.Max(was.Low, is.Low) > math.Min(was.High, is.High) {
		return "**" + c + "**"
	}
	return c
}
