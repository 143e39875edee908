// Package tried writes the tables in docs/runtimes.md: what a real client was
// tried with, with which versions, and which test does it.
//
// A test says by Row what it tries. When all tests of the package have run, Main
// compares the rows with the client's table, which UPDATE=1 rewrites. The table is
// between two comments in docs/runtimes.md, "tried: CLIENT" and "end of tried".
package tried

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/netcleat/netcleat/pkg/nltest"
)

// rows are what the tests of this process have tried.
var rows struct {
	sync.Mutex
	all      []row
	versions string
}

type row struct {
	what, test string
	skipped    bool
}

// Row says what the test tries. A test may try several things. What does not work
// is a row, too: it says so, and the test sees it fail.
func Row(t testing.TB, what string) {
	t.Helper()
	t.Cleanup(func() {
		rows.Lock()
		defer rows.Unlock()
		rows.all = append(rows.all, row{what, t.Name(), t.Skipped()})
	})
}

// Versions says which versions of the client, and of what it runs, were tried:
// "nerdctl 1.7.7, containerd 1.6.20". They are written with the table, and not
// compared: another machine has others.
func Versions(v string) {
	rows.Lock()
	defer rows.Unlock()
	rows.versions = v
}

// Main runs the package's tests, for TestMain, and returns the exit code. It looks
// at the client's table where all tests have run and passed.
func Main(m *testing.M, client string) int {
	flag.Parse()
	code := m.Run()
	if code != 0 || len(rows.all) == 0 || chosen("test.run") || chosen("test.skip") || chosen("test.list") {
		return code
	}
	if err := compare(client); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func chosen(name string) bool {
	f := flag.Lookup(name)
	return f != nil && f.Value.String() != ""
}

func compare(client string) error {
	repo, err := nltest.Repository()
	if err != nil {
		return err
	}
	path := filepath.Join(repo, "docs/runtimes.md")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	part, err := cut(string(text), client)
	if err != nil {
		return err
	}
	if os.Getenv("UPDATE") != "" {
		return os.WriteFile(path, []byte(part.before+written(part.table)+part.after), 0o644) //nolint:gosec // to be read by all
	}
	if missing, stale := differ(part.table); len(missing)+len(stale) > 0 {
		return fmt.Errorf("docs/runtimes.md, tried: %s: UPDATE=1 go test rewrites the table\nmissing:\n%s\nno test has:\n%s",
			client, strings.Join(missing, "\n"), strings.Join(stale, "\n"))
	}
	return nil
}

// parts are the document's: the client's table, and what is before and after it.
type parts struct{ before, table, after string }

// cut finds the client's table.
func cut(text, client string) (parts, error) {
	begin, end := "<!-- tried: "+client+" (UPDATE=1 go test rewrites this) -->\n", "<!-- end of tried -->"
	i := strings.Index(text, begin)
	if i < 0 {
		return parts{}, fmt.Errorf("docs/runtimes.md: no line %s", begin)
	}
	i += len(begin)
	n := strings.Index(text[i:], end)
	if n < 0 {
		return parts{}, fmt.Errorf("docs/runtimes.md: no line %s behind %s", end, begin)
	}
	return parts{text[:i], text[i : i+n], text[i+n:]}, nil
}

// line is the row in the table.
func (r row) line() string {
	test, _, _ := strings.Cut(r.test, "/")
	return fmt.Sprintf("| %s | `%s` |", r.what, test)
}

// differ compares the rows with the table. Those of tests that this machine skips
// may be there or not.
func differ(table string) (missing, stale []string) {
	var have []string
	for l := range strings.Lines(table) {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "| ") && l != head {
			have = append(have, l)
		}
	}
	for _, r := range rows.all {
		i := slices.Index(have, r.line())
		switch {
		case i >= 0:
			have = slices.Delete(have, i, i+1)
		case !r.skipped:
			missing = append(missing, r.line())
		}
	}
	return missing, have
}

const head = "| tried | test |"

// written is the new table. A row whose test was skipped stays as it was.
func written(old string) string {
	var lines []string
	for _, r := range rows.all {
		if !r.skipped || strings.Contains(old, r.line()+"\n") {
			lines = append(lines, r.line())
		}
	}
	slices.SortFunc(lines, cmp.Compare[string])
	return "Tried with " + rows.versions + ":\n\n" + head + "\n|---|---|\n" + strings.Join(slices.Compact(lines), "\n") + "\n"
}
