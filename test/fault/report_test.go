package fault

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// rows is where each campaign leaves its line of the table, and report the table.
var (
	rows   = filepath.Join(repo, "build/fault/rows")
	report = filepath.Join(repo, "build/fault/report.md")
	readme = filepath.Join(repo, "README.md")
)

// row is a line of the table: what was tried, and what went wrong.
type row struct {
	suite, what, tried string
	leaks              int64
	twice              string // "" where nothing can be given twice
	failures           int64
}

// The table stands between these in the README.
const (
	head = "<!-- faults: written by make test-faults UPDATE=1 -->\n"
	foot = "<!-- end of faults -->\n"
)

const columns = "| plugins | what | tried | left behind | given twice | failed | when |\n|---|---|--:|--:|--:|--:|---|\n"

// write puts the row, with its date and versions, into the table. Only campaigns
// are counted. With UPDATE=1 the README has the new table.
func (r row) write(t *testing.T, name string) {
	t.Helper()
	if !full() || r.suite == fromOutside {
		return
	}
	line := fmt.Sprintf("| %s %s | %s | %s | %d | %s | %d | %s, Linux %s |\n",
		r.suite, version(t, r.suite), r.what, r.tried, r.leaks, r.twice, r.failures, time.Now().UTC().Format(time.DateOnly), kernel(t))
	must(t, os.MkdirAll(rows, 0o755))
	must(t, os.WriteFile(filepath.Join(rows, name+".md"), []byte(line), 0o644))
	table := []byte(columns)
	all, err := filepath.Glob(rows + "/*.md")
	must(t, err)
	for _, path := range all {
		b, err := os.ReadFile(path)
		must(t, err)
		table = append(table, b...)
	}
	must(t, os.WriteFile(report, table, 0o644))
	if os.Getenv("UPDATE") != "" {
		update(t, table)
	}
}

// update puts the table into the README.
func update(t *testing.T, table []byte) {
	t.Helper()
	page, err := os.ReadFile(readme)
	must(t, err)
	before, rest, begun := bytes.Cut(page, []byte(head))
	_, after, ended := bytes.Cut(rest, []byte(foot))
	if !begun || !ended {
		t.Fatalf("%s: has no place for the table", readme)
	}
	must(t, os.WriteFile(readme, bytes.Join([][]byte{before, []byte(head), table, []byte(foot), after}, nil), 0o644))
}

// version is that of the plugins under judgement.
func version(t *testing.T, suite string) string {
	t.Helper()
	if suite == "netcleat" {
		return plugin.Version
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(reference), "versions"))
	must(t, err)
	v, _, _ := strings.Cut(strings.TrimPrefix(string(b), "plugins "), ",")
	return v
}

func kernel(t *testing.T) string {
	t.Helper()
	var u unix.Utsname
	must(t, unix.Uname(&u))
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return release
}
