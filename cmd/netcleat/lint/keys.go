package lint

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/docs/schema"
)

// duplicates warns of keys that one object has twice.
func (l *linter) duplicates(d *document, v *value) {
	first := map[string]int{}
	for _, m := range v.members {
		if at, twice := first[m.key]; twice {
			l.say(Warning, d, m.at, "key %q: is also in line %d, which does not count", m.key, lineOf(d, at))
		}
		first[m.key] = m.at
		l.duplicates(d, m.value)
	}
	for _, e := range v.items {
		l.duplicates(d, e)
	}
}

func lineOf(d *document, at int) int {
	line, _ := d.position(at)
	return line
}

// elsewhere are the keys of a plugin whose own keys are checked on their own, or
// are the runtime's.
var elsewhere = []string{"ipam", "plugins", "prevResult", "runtimeConfig", "capabilities"}

// keys warns of keys that the schema has not, and of those in another case.
func (l *linter) keys(d *document, v *value, s *schema.Schema) {
	switch {
	case s == nil || v == nil:
		return
	case v.kind == '[':
		for _, e := range v.items {
			l.keys(d, e, s.Items)
		}
		return
	}
	for _, m := range v.members {
		name, known := lookup(s, m.key)
		switch {
		case !known && s.Closed() && !extension(s, m.key):
			l.say(Warning, d, m.at, "key %q: nothing reads it%s", m.key, l.hint(m.key, s))
		case known && name != m.key && v.has(name):
			l.say(Warning, d, m.at, "key %q: %q is there, too, and counts", m.key, name)
		case known && name != m.key:
			l.say(Warning, d, m.at, "key %q: is called %q; other programs do not know it in this case", m.key, name)
		}
		if known && !slices.Contains(elsewhere, name) {
			l.keys(d, m.value, s.Properties[name])
		}
	}
}

// has reports whether the object has the key, spelt so.
func (v *value) has(key string) bool {
	return slices.ContainsFunc(v.members, func(m member) bool { return m.key == key })
}

// lookup returns a key as the schema spells it.
func lookup(s *schema.Schema, key string) (name string, known bool) {
	if s.Properties[key] != nil {
		return key, true
	}
	for name := range s.Properties {
		if strings.EqualFold(name, key) {
			return name, true
		}
	}
	return "", false
}

// extension reports whether the schema lets the key through for other programs.
func extension(s *schema.Schema, key string) bool {
	for pattern := range s.PatternProperties {
		if ok, err := regexp.MatchString(pattern, key); ok && err == nil {
			return true
		}
	}
	return false
}

// hint says what may have been meant by a key that the schema has not.
func (l *linter) hint(key string, s *schema.Schema) string {
	if name := nearest(key, slices.Sorted(maps.Keys(s.Properties))); name != "" {
		return `: did you mean "` + name + `"?`
	}
	if s.Properties["ipam"] != nil {
		for _, name := range ipams() {
			if _, known := lookup(l.properties(name), key); known {
				return `: does it belong in "ipam"?`
			}
		}
	}
	var owners []string
	for _, name := range schema.Names() {
		if _, known := lookup(l.properties(name), key); known && !isIPAM(name) {
			owners = append(owners, name)
		}
	}
	if len(owners) > 0 {
		return ": it is a key of " + strings.Join(owners, ", ")
	}
	return ""
}

// properties is the schema of a plugin, empty where there is none.
func (l *linter) properties(plugin string) *schema.Schema {
	if s := l.schemas[plugin]; s != nil && plugin != schema.List {
		return s
	}
	return &schema.Schema{}
}

// nearest returns the name that was most likely meant, or "": the one with the
// fewest edits, of which a third of its letters may be.
func nearest(word string, names []string) string {
	best, edits := "", len(word)
	for _, n := range names {
		if d := distance(strings.ToLower(word), strings.ToLower(n)); d < edits && d <= max(1, len(n)/3) {
			best, edits = n, d
		}
	}
	return best
}

// distance is the number of letters to add, drop, change or swap with the next
// one (optimal string alignment).
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+differ(a[i-1], b[j-1]))
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

func differ(a, b byte) int { return min(1, max(cmp.Compare(a, b), cmp.Compare(b, a))) }
