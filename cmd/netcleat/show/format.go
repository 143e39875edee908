package show

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/netcleat/netcleat/cmd/netcleat/term"
)

// Formats are the outputs that lists have besides templates.
var Formats = []string{"table", wide, asJSON}

const (
	wide   = "wide"
	asJSON = "json"
)

// Format says how a list is printed.
type Format struct {
	Output   string // one of Formats: -o of netcleat
	Template string // a Go template, "json" or "table TEMPLATE": --format of Docker and podman
	Quiet    bool   // only names or IDs
	NoTrunc  bool   // whole IDs
}

// Check returns an error if the format does not exist.
func (f Format) Check() error {
	if !slices.Contains(Formats, f.Output) {
		return fmt.Errorf("output %q: want table, wide or json", f.Output)
	}
	_, err := f.parse()
	return err
}

// parse returns the template, which is nil where none is asked for.
func (f Format) parse() (*template.Template, error) {
	if f.Template == "" || f.Template == asJSON {
		return nil, nil //nolint:nilnil // as documented
	}
	text := strings.TrimPrefix(f.Template, "table ")
	t, err := template.New("").Funcs(template.FuncMap{"json": toJSON, "join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper}).Parse(unescape(text))
	if err != nil {
		return nil, fmt.Errorf("format %q: %w", f.Template, err)
	}
	return t, nil
}

// unescape writes the tab and the line's end that a shell's quotes leave as \t and \n.
func unescape(s string) string { return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s) }

func toJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// field is a field of a template, whose name heads its column.
var field = regexp.MustCompile(`{{[^}]*?\.(\w+)[^}]*}}`)

// printEach prints each item by the template, or as one JSON object a line, as Docker
// does.
func printEach[T any](w io.Writer, f Format, items []T) error {
	t, err := f.parse()
	if err != nil {
		return err
	}
	header, isTable := strings.CutPrefix(f.Template, "table ")
	if isTable {
		tab := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		defer func() { _ = tab.Flush() }() // w keeps its error
		header = field.ReplaceAllStringFunc(unescape(header), func(s string) string { return strings.ToUpper(field.FindStringSubmatch(s)[1]) })
		fmt.Fprintln(tab, header)
		w = tab
	}
	for _, item := range items {
		if t == nil {
			line, err := toJSON(item)
			if err != nil {
				return err
			}
			fmt.Fprintln(w, line)
			continue
		}
		if err := t.Execute(w, item); err != nil {
			return fmt.Errorf("format %q: %w", f.Template, err)
		}
		fmt.Fprintln(w)
	}
	return nil
}

// Filter is a KEY=VALUE of --filter.
type Filter struct{ Key, Value string }

// printOther prints items in the formats without columns, and reports whether the
// format is one of them. quiet is the template of what Format.Quiet prints.
func printOther[T any](w io.Writer, f Format, quiet string, items []T) (done bool, err error) {
	if f.Quiet {
		f.Template = quiet
	}
	switch {
	case f.Template != "":
		return true, printEach(w, f, items)
	case f.Output == asJSON:
		return true, term.JSON(w, append([]T{}, items...))
	}
	return false, nil
}

// ParseFilters reads filters, of which the keys are given.
func ParseFilters(args []string, keys ...string) (filters []Filter, err error) {
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || !slices.Contains(keys, k) {
			return nil, fmt.Errorf("filter %q: want KEY=VALUE, where KEY is %s", a, strings.Join(keys, ", "))
		}
		filters = append(filters, Filter{k, v})
	}
	return filters, nil
}

// matching returns the items that match: of filters with one key one is enough, and
// of each key one must match, as with Docker.
func matching[T any](items []T, filters []Filter, match func(T, Filter) bool) []T {
	return slices.DeleteFunc(slices.Clone(items), func(item T) bool {
		return slices.ContainsFunc(filters, func(f Filter) bool {
			return !slices.ContainsFunc(filters, func(g Filter) bool { return g.Key == f.Key && match(item, g) })
		})
	})
}

// RowFilters and NetworkFilters are the keys by which lists can be filtered.
var (
	RowFilters     = []string{"network", "name", "id", "health"}
	NetworkFilters = []string{"name", "id", "driver", "label", "dangling"}
)

// FilterRows returns the rows that match.
func FilterRows(rows []Row, filters []Filter) []Row {
	return matching(rows, filters, func(r Row, f Filter) bool {
		switch f.Key {
		case "network":
			return r.Network == f.Value
		case "name":
			return strings.Contains(r.Name, f.Value)
		case "id":
			return strings.HasPrefix(r.ID(), f.Value) || strings.HasPrefix(r.Container, f.Value)
		}
		return r.Health == f.Value
	})
}

// FilterNetworks returns the networks that match.
func FilterNetworks(all []Network, filters []Filter) []Network {
	return matching(all, filters, func(n Network, f Filter) bool {
		switch f.Key {
		case "name", "id":
			return strings.Contains(n.Name, f.Value)
		case "driver":
			return n.Driver == f.Value
		case "label":
			key, value, exact := strings.Cut(f.Value, "=")
			have, ok := n.Labels[key]
			return ok && (!exact || have == value)
		}
		return (len(n.Containers) == 0) == (f.Value == "true" || f.Value == "1")
	})
}

// Labels are the KEY=VALUE pairs that users give a network.
type Labels map[string]string

// String writes them as Docker does: a=b,c=d.
func (l Labels) String() string {
	var pairs []string
	for k, v := range l {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}
