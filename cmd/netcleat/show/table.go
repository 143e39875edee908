package show

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/term"
)

// Formats are how lists are printed.
var Formats = []string{"table", "wide", "json"}

// CheckFormat returns the error for a format that is none.
func CheckFormat(name string) error {
	if slices.Contains(Formats, name) {
		return nil
	}
	return fmt.Errorf("output %q: want table, wide or json", name)
}

// PrintRows prints attachments in the format.
func PrintRows(w io.Writer, rows []Row, format string) error {
	if format == "json" {
		return printJSON(w, append([]Row{}, rows...))
	}
	t := newTable(w)
	head := "NETWORK\tCONTAINER\tINTERFACE\tHOST END\tADDRESSES\tMAC\tPORTS\tAGE\tHEALTH"
	if format == "wide" {
		head += "\tNETNS\tPLUGINS"
	}
	t.line(head)
	for _, r := range rows {
		host := r.HostEnd
		if r.Master != "" {
			host += " (" + r.Master + ")"
		}
		line := []string{
			r.Network, name(r, format), r.Interface, host, strings.Join(r.Addresses, " "), r.MAC, strings.Join(r.Ports, " "), age(r.Created), health(w, r, format),
		}
		if format == "wide" {
			line = append(line, r.Netns, strings.Join(r.Plugins, ","))
		}
		t.line(strings.Join(line, "\t"))
	}
	return t.flush()
}

// health is in colour where nothing stands behind it that must be aligned.
func health(w io.Writer, r Row, format string) string {
	if format == "wide" {
		return r.Health
	}
	return term.Health(w, r.Health)
}

// name is the pod's where there is one, else the container's.
func name(r Row, format string) string {
	const short = 12
	switch {
	case format == "wide" && r.Pod != "":
		return r.Container + " " + r.Pod
	case r.Pod != "":
		return r.Pod
	case format == "table" && len(r.Container) > short && isHex(r.Container):
		return r.Container[:short]
	}
	return r.Container
}

// isHex reports whether the ID is a runtime's long number, of which people read
// the beginning.
func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// age writes a time as people compare it: 5s, 12m, 3h, 4d.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	switch d := time.Since(t); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// table aligns columns.
type table struct {
	w   *tabwriter.Writer
	err error
}

func newTable(w io.Writer) *table { return &table{w: tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)} }

func (t *table) line(s string) {
	if _, err := fmt.Fprintln(t.w, s); t.err == nil {
		t.err = err
	}
}

func (t *table) flush() error {
	if t.err != nil {
		return t.err
	}
	return t.w.Flush()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
