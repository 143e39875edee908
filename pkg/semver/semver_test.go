package semver_test

import (
	"slices"
	"testing"

	"github.com/netcleat/netcleat/pkg/semver"
)

// Numbers count, not text: 1.10.0 is later than 1.9.0.
func TestCompare(t *testing.T) {
	ordered := []string{"", "0.1.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "1.1.1", "1.9.0", "1.10.0", "1.10.2", "2.0.0", "10.0.0"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got, want := semver.AtLeast(a, b), i >= j; got != want {
				t.Errorf("AtLeast(%q, %q) = %v, want %v", a, b, got, want)
			}
		}
	}
	shuffled := slices.Clone(ordered)
	slices.Sort(shuffled) // as text
	slices.SortFunc(shuffled, semver.Compare)
	if !slices.Equal(shuffled, ordered) {
		t.Errorf("sorted %q, want %q", shuffled, ordered)
	}
}

func TestCompareEqual(t *testing.T) {
	for _, pair := range [][2]string{{"1.0", "1.0.0"}, {"", "0.0.0"}, {"1.7.0-rc1", "1.7.0"}, {"1.6.20~ds1", "1.6.20"}} {
		if c := semver.Compare(pair[0], pair[1]); c != 0 {
			t.Errorf("Compare(%q, %q) = %d, want 0", pair[0], pair[1], c)
		}
	}
}
