package schema

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// table is one of a README whose first column has keys.
type table struct {
	head string // of its first column
	rows []row
}

type row struct {
	keys []string // addresses[].address
	text string
}

type tables []table

var (
	ticked = regexp.MustCompile("`([^`]+)`")
	links  = regexp.MustCompile(`\[([^\]]+)\]\([^)]*\)`)
	asFor  = regexp.MustCompile(`^as for \[[a-z-]+\]\(\.\./([a-z-]+)/README\.md\)`)
)

// readTables reads the tables of keys in a README.
func readTables(t *testing.T, path string) (all tables) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	var head []string
	for line := range strings.Lines(string(b)) {
		cells := cellsOf(line)
		switch {
		case cells == nil:
			head = nil
		case head == nil:
			head = cells
			all = append(all, table{head: strings.ReplaceAll(head[0], "`", "")})
		case strings.Trim(cells[0], "-") != "":
			last := &all[len(all)-1]
			last.rows = append(last.rows, readRow(head, cells))
		}
	}
	return slices.DeleteFunc(all, func(t table) bool { return !strings.HasPrefix(t.head, "key") })
}

func cellsOf(line string) []string {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") {
		return nil
	}
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}

func readRow(head, cells []string) (r row) {
	for _, m := range ticked.FindAllStringSubmatch(cells[0], -1) {
		r.keys = append(r.keys, m[1])
	}
	r.text = cells[len(cells)-1]
	if i := slices.Index(head, "default"); i > 0 && i < len(cells)-1 && cells[i] != "" {
		r.text += ". Default: " + cells[i]
	}
	return r
}

// of returns the tables with that head.
func (all tables) of(head string) tables {
	return slices.DeleteFunc(slices.Clone(all), func(t table) bool { return t.head != head })
}

// texts returns what is said of a key, in order.
func (all tables) texts(key string) (texts []string) {
	for _, t := range all {
		for _, r := range t.rows {
			if slices.Contains(r.keys, key) {
				texts = append(texts, r.text)
			}
		}
	}
	return texts
}

// text returns all that is said of a key, without Markdown.
func (all tables) text(key string) string { return plain(strings.Join(all.texts(key), "; ")) }

func plain(s string) string {
	s = links.ReplaceAllString(s, "$1")
	s = strings.NewReplacer("`", "", "*", "").Replace(s)
	return strings.TrimSpace(s)
}

// describeAll gives each key the words of its plugin's README.
func describeAll(t *testing.T, own map[string]*Schema, rooms map[string]string) {
	t.Helper()
	said := map[string]tables{} // by room
	for _, room := range rooms {
		said[room] = readTables(t, "plugins/"+room+"/README.md")
	}
	for name, s := range own {
		room := rooms[name]
		for key, p := range s.Properties {
			describe(p, key, tablesFor(said, room))
			if p.Description == "" && key != "type" {
				t.Errorf("plugins/%s/README.md: no table of keys has `%s`", room, key)
			}
		}
		for _, table := range said[room] {
			for _, r := range table.rows {
				for _, key := range r.keys {
					if !s.has(key) {
						t.Errorf("plugins/%s/README.md: %s has no key `%s`", room, name, key)
					}
				}
			}
		}
	}
}

// tablesFor returns a room's tables, with the words of another's README where
// one says "as for" it.
func tablesFor(said map[string]tables, room string) (all tables) {
	for _, t := range said[room] {
		rows := slices.Clone(t.rows)
		for i, r := range rows {
			m := asFor.FindStringSubmatch(r.text)
			if m == nil {
				continue
			}
			rest := r.text[len(m[0]):]
			rows[i].text = "as for " + m[1] + rest
			for _, key := range r.keys {
				if texts := said[m[1]].texts(key); len(texts) > 0 {
					rows = append(rows, row{keys: []string{key}, text: texts[0]})
					rows[i].keys = slices.DeleteFunc(slices.Clone(rows[i].keys), func(k string) bool { return k == key })
				}
			}
		}
		all = append(all, table{t.head, rows})
	}
	return all
}

// describe gives a key, and those below it, what is said of its path or, below,
// of its name.
func describe(s *Schema, path string, said tables) {
	if text := said.text(path); text != "" {
		s.Description = text
	} else if i := strings.LastIndexByte(path, '.'); i >= 0 {
		if texts := said.texts(path[i+1:]); len(texts) > 0 {
			s.Description = plain(texts[len(texts)-1])
		}
	}
	for s.Items != nil {
		s, path = s.Items, path+"[]"
	}
	for key, p := range s.Properties {
		describe(p, path+"."+key, said)
	}
}

// has reports whether there is such a key: addresses[].address.
func (s *Schema) has(path string) bool {
	for part := range strings.SplitSeq(path, ".") {
		key := strings.TrimRight(part, "[]")
		if s = s.Properties[key]; s == nil {
			return false
		}
		for range strings.Count(part, "[]") {
			if s = s.Items; s == nil {
				return false
			}
		}
	}
	return true
}
