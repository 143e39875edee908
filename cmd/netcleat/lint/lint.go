// Package lint checks network configurations before a runtime uses them: with
// the plugins' own parsers, with the schema of their keys, and by what only a
// whole list, or a whole directory, shows. It looks at files alone, at no host.
package lint

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/netcleat/netcleat/cmd/netcleat/runtimes"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
	"github.com/netcleat/netcleat/docs/schema"
)

// Level says how bad a finding is.
type Level string

// The levels. An Error is what a runtime or a plugin refuses, or what cannot work;
// a Warning what works otherwise than it reads.
const (
	Error   Level = "error"
	Warning Level = "warning"
	Note    Level = "note"
)

// Finding is one thing that was found. Line and Column count from 1, columns in
// characters; they are 0 where it is about no place in the file.
type Finding struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Level   Level  `json:"level"`
	Message string `json:"message"`
}

// Where is the place: "file:line:column".
func (f Finding) Where() string {
	if f.Line == 0 {
		return f.File
	}
	return fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
}

// Formats are how findings are printed.
var Formats = []string{"text", "json"}

// linter gathers what is found.
type linter struct {
	readers []runtimes.Runtime
	found   []Finding
	order   map[string]int // of the files, as they were read
	schemas map[string]*schema.Schema
}

func newLinter() *linter {
	l := &linter{order: map[string]int{}, schemas: map[string]*schema.Schema{}}
	for _, name := range append(schema.Names(), schema.List) {
		if s, err := schema.Read(name); err == nil { // they are part of this program, and tested
			l.schemas[name] = s
		}
	}
	return l
}

// Check looks at files, and at all configurations in directories.
func Check(paths ...string) []Finding { return CheckFor(nil, paths...) }

// CheckFor is Check, and says which lists the runtimes refuse.
func CheckFor(readers []runtimes.Runtime, paths ...string) []Finding {
	l := newLinter()
	l.readers = readers
	var lists []*list
	for _, path := range paths {
		for _, file := range l.filesOf(path) {
			if _, twice := l.order[file]; twice {
				continue
			}
			if d := l.open(file); d != nil {
				lists = append(lists, l.list(d))
			}
		}
	}
	for _, dir := range byDirectory(lists) {
		l.directory(dir)
	}
	slices.SortStableFunc(l.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(l.order[a.File], l.order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return l.found
}

// Files is how many files the paths stand for.
func Files(paths ...string) int {
	l, seen := &linter{order: map[string]int{}}, map[string]bool{}
	for _, path := range paths {
		for _, file := range l.filesOf(path) {
			seen[file] = true
		}
	}
	return len(seen)
}

// filesOf returns the files that a path stands for: itself, or those in it that
// runtimes read, in their order.
func (l *linter) filesOf(path string) (files []string) {
	path = filepath.Clean(path)
	st, err := os.Stat(path)
	if err != nil || !st.IsDir() {
		return []string{path}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		l.unreadable(path, err)
	}
	for _, e := range entries {
		if slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 && err == nil {
		l.about(path, Warning, "no file that runtimes read: they are called *.conflist, *.conf or *.json")
	}
	return files
}

func (l *linter) unreadable(path string, err error) {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		err = perr.Err
	}
	l.about(path, Error, err.Error())
}

// about says something of a file, and of no place in it.
func (l *linter) about(path string, level Level, message string) {
	l.order[path] = len(l.order)
	l.found = append(l.found, Finding{File: path, Level: level, Message: message})
}

// open reads a JSON object from a file. nil is one in which that was wrong.
func (l *linter) open(path string) *document {
	b, err := os.ReadFile(path)
	if err != nil {
		l.unreadable(path, err)
		return nil
	}
	return l.document(path, b)
}

// document reads a JSON object.
func (l *linter) document(path string, b []byte) *document {
	l.order[path] = len(l.order)
	d := &document{file: path, text: b}
	var err error
	if d.root, err = parse(b); err != nil {
		var where *notJSON
		errors.As(err, &where)
		l.say(Error, d, where.at, "%v", err)
		return nil
	}
	if d.root.kind != '{' {
		l.say(Error, d, d.root.at, "not an object: want {…}")
		return nil
	}
	return d
}

func (l *linter) say(level Level, d *document, at int, format string, args ...any) { //nolint:revive // argument-limit: fmt's own
	line, column := d.position(at)
	l.found = append(l.found, Finding{d.file, line, column, level, fmt.Sprintf(format, args...)})
}

// Count returns how many findings are of the level.
func Count(found []Finding, level Level) (n int) {
	for _, f := range found {
		if f.Level == level {
			n++
		}
	}
	return n
}

// Print prints findings in the format.
func Print(w io.Writer, found []Finding, format string) error {
	switch format {
	case "json":
		return term.JSON(w, append([]Finding{}, found...))
	case "text":
		for _, f := range found {
			if _, err := fmt.Fprintf(w, "%s: %s: %s\n", f.Where(), term.Level(w, string(f.Level)), f.Message); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("output %q: want text or json", format)
}
