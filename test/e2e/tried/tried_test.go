package tried

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const text = `before
<!-- tried: this (UPDATE=1 go test rewrites this) -->
Tried with this 1.0:

| tried | test |
|---|---|
| one thing | ` + "`TestOne`" + ` |
| what this machine lacks | ` + "`TestLacking`" + ` |
| what no test does | ` + "`TestDeleted`" + ` |
<!-- end of tried -->
after
`

// The table has what the tests have tried, no more and no less; what a machine
// skips stays as another has written it.
func TestTable(t *testing.T) {
	rows.versions = "this 1.1"
	rows.all = []row{{"two things", "TestTwo/part", false}, {"one thing", "TestOne", false}, {"what this machine lacks", "TestLacking", true}, {"what all lack", "TestNowhere", true}}
	defer func() { rows.all = nil }()
	part, err := cut(text, "this")
	if err != nil {
		t.Fatal(err)
	}
	missing, stale := differ(part.table)
	if diff := cmp.Diff([][]string{{"| two things | `TestTwo` |"}, {"| what no test does | `TestDeleted` |"}}, [][]string{missing, stale}); diff != "" {
		t.Errorf("missing and stale (-want +got):\n%s", diff)
	}
	want := strings.NewReplacer("this 1.0", "this 1.1", "| what no test does | `TestDeleted` |\n", "", "| what this", "| two things | `TestTwo` |\n| what this").Replace(text)
	if diff := cmp.Diff(want, part.before+written(part.table)+part.after); diff != "" {
		t.Errorf("rewritten (-want +got):\n%s", diff)
	}
	if _, err := cut(text, "that"); err == nil {
		t.Error("the table of another client is taken for that of this")
	}
}
