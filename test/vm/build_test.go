package main

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

func TestBatchesKeepBaseNamesApart(t *testing.T) {
	tests := []job.Test{{Package: "plugins/firewall"}, {Package: "pkg/store"}, {Package: "pkg/firewall"}, {Package: "test/firewall"}}
	groups := batches(tests)
	if len(groups) != 3 || len(groups[0]) != 2 || groups[1][0] != &tests[2] || groups[2][0] != &tests[3] {
		t.Errorf("want 3 groups of 2, 1 and 1, got %v", groups)
	}
}

func TestShareDealsOutEachTestOnce(t *testing.T) {
	tests := []job.Test{{Package: "a"}, {Package: "b"}, {Package: "c"}}
	for machines, want := range map[int]string{0: "a b c", 1: "a b c", 2: "a c|b", 5: "a|b|c"} {
		var got []string
		for _, some := range share(tests, machines) {
			var names []string
			for _, test := range some {
				names = append(names, test.Package)
			}
			got = append(got, strings.Join(names, " "))
		}
		if got := strings.Join(got, "|"); want != got {
			t.Errorf("%d machines: want %s, got %s", machines, want, got)
		}
	}
}

// After an @ a pattern says which tests run; the order of the patterns is kept.
func TestPatterns(t *testing.T) {
	var got []string
	for _, pattern := range []string{"./internal/...", ".@Share", "./selftest"} {
		tests, err := findTests(t.Context(), pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range tests {
			got = append(got, path.Base(test.Package)+"@"+test.Run)
		}
	}
	if want := []string{"vm@Share", "selftest@"}; !slices.Equal(want, got) {
		t.Errorf("want %q, got %q", want, got)
	}
}

// A wrong archive does not boot; what a boot does not show is that each part begins at a multiple of four.
func TestArchiveAligns(t *testing.T) {
	var a archive
	for _, content := range []string{"", "1", "22", "333", "4444"} {
		a.entry("file"+content, 0o100644, []byte(content))
		if a.Len()%4 != 0 {
			t.Errorf("%q: want a multiple of 4, got %d", content, a.Len())
		}
	}
	const header = 110
	var one archive
	one.entry("f", 0o100644, []byte("abc"))
	if want, got := header+2+4, one.Len(); want != got {
		t.Errorf("want %d bytes, got %d", want, got)
	}
}
