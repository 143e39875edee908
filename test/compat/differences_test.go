package compat

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// difference is an entry of differences.txt.
type difference struct {
	name string // plugin: what about it, or suite: …
	kind string
	what string
	seen []*sighting
}

// sighting is a difference that a story shows: story, step: ours | theirs. A
// star stands for anything.
type sighting struct {
	text  string
	match *regexp.Regexp
	found bool
}

// differences are all entries.
type differences []difference

var kinds = []string{"bug of theirs", "improvement", "deliberate"}

// readDifferences reads the file: entries apart by empty lines, one line a field.
func readDifferences(t *testing.T) (all differences) {
	t.Helper()
	b, err := os.ReadFile("differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	for entry := range strings.SplitSeq(string(b), "\n\n") {
		if d := readDifference(t, entry); d.name != "" {
			all = append(all, d)
		}
	}
	return all
}

func readDifference(t *testing.T, entry string) (d difference) {
	t.Helper()
	for line := range strings.Lines(entry) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case key == "name":
			d.name = value
		case key == "kind":
			d.kind = value
		case key == "what":
			d.what = value
		case key == "seen":
			pattern := strings.ReplaceAll(regexp.QuoteMeta(value), `\*`, `.*`)
			d.seen = append(d.seen, &sighting{text: value, match: regexp.MustCompile(`^` + pattern + `$`)})
		default:
			t.Fatalf("differences.txt: %q: not a field", line)
		}
	}
	return d
}

// has reports whether one of the entries says so.
func (all differences) has(seen string) (found bool) {
	for _, d := range all {
		for _, s := range d.seen {
			if s.match.MatchString(seen) {
				s.found, found = true, true
			}
		}
	}
	return found
}

// unseen returns what no story showed.
func (all differences) unseen() (texts []string) {
	for _, d := range all {
		for _, s := range d.seen {
			if !s.found {
				texts = append(texts, s.text)
			}
		}
	}
	return texts
}

// Every entry is whole, and every plugin whose README says that it differs has one.
func TestDifferencesAreWhole(t *testing.T) {
	all := readDifferences(t)
	names := map[string]bool{}
	for _, d := range all {
		if names[d.name] {
			t.Errorf("%s: twice", d.name)
		}
		names[d.name] = true
		subject, _, _ := strings.Cut(d.name, ":")
		if subject != "suite" && !slices.Contains(plugins, subject) {
			t.Errorf("%s: not a plugin", d.name)
		}
		if !slices.Contains(kinds, d.kind) {
			t.Errorf("%s: kind %q is none of %q", d.name, d.kind, kinds)
		}
		if d.what == "" {
			t.Errorf("%s: what is it?", d.name)
		}
	}
	for _, p := range differing(t) {
		if !slices.ContainsFunc(all, func(d difference) bool { return strings.HasPrefix(d.name, p+":") }) {
			t.Errorf("%s: its README says how it differs, differences.txt does not", p)
		}
	}
}

var heading = regexp.MustCompile(`(?m)^## Differences from the reference$`)

// differing returns the plugins whose README has a section of differences.
func differing(t *testing.T) (names []string) {
	t.Helper()
	readmes, err := filepath.Glob("../../plugins/*/README.md")
	if err != nil || len(readmes) < len(plugins) {
		t.Fatalf("%d of %d READMEs: %v", len(readmes), len(plugins), err)
	}
	for _, path := range readmes {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if heading.Match(b) {
			title, _, _ := strings.Cut(strings.TrimPrefix(string(b), "# "), "\n")
			names = append(names, title)
		}
	}
	if len(names) == 0 {
		t.Fatal("no README has such a section")
	}
	return names
}
