package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// lastCell is the code in the last cell of a table's row.
var lastCell = regexp.MustCompile("(?m)^\\|.*\\| `(netcleat [^`]+)` \\|$")

// doc runs the commands of a page of the documentation: those in the last cells of
// its tables. Each has to succeed. The programs in bin are found by name.
func (s *suite) doc(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 1 && !neg, "doc page")
	page, err := os.ReadFile(filepath.Join(s.repo, args[0]))
	ts.Check(err)
	lines := lastCell.FindAllStringSubmatch(string(page), -1)
	if len(lines) == 0 {
		ts.Fatalf("%s has no commands", args[0])
	}
	path := strings.Join([]string{"PATH=" + filepath.Dir(s.netcleat), ts.MkAbs("bin"), ts.Getenv("PATH")}, ":")
	var all []byte
	for _, line := range lines {
		out, err := inHost(ts, nil, []string{path}, "sh", "-euc", line[1])
		if err != nil {
			ts.Fatalf("%s: %v\n%s", line[1], err, out)
		}
		all = append(append(all, "$ "+line[1]+"\n"...), out...)
	}
	judge(ts, false, all, nil)
}
