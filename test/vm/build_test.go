package main

import (
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
